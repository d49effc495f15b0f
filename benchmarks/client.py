"""A visitor without a browser: uploads, waits for its turn in the queue, and fetches what a viewer would."""

import json
import secrets
from functools import cache
from typing import Any

import httpx


@cache
def events_of(url: str) -> list[dict[str, Any]]:
    return httpx.get(f"{url}config", timeout=60).raise_for_status().json()["dependencies"]


class Client:
    """One open page. address: whom a proxy in front of the app would name, for a visitor from elsewhere."""

    def __init__(self, url: str, address: str = "", timeout: float = 300):
        self.session = secrets.token_hex(8)
        headers = {"x-forwarded-for": address} if address else {}
        self.http = httpx.Client(base_url=url, timeout=timeout, headers=headers)

    def __enter__(self) -> "Client":
        self.open = self.http.stream("GET", f"gradio_api/heartbeat/{self.session}")
        self.open.__enter__()  # an open heartbeat is an open tab
        return self

    def __exit__(self, *error: object) -> None:
        self.open.__exit__(None, None, None)
        self.http.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The handlers of the app, in their order: a page has them with it."""
        return events_of(str(self.http.base_url))

    def send(self, content: bytes, name: str = "files") -> dict[str, Any]:
        """An upload, as handlers take it."""
        uploaded = self.http.post("gradio_api/upload", files={"files": (name, content)}).raise_for_status()
        return {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}

    def join(self, name: str, values: list, event_data: Any = None) -> None:
        """Take a place in the queue for one of the handlers. What it needs of states, the server fills in."""
        event = next(d for d in self.events if d["api_name"] == name)
        data = values + [None] * (len(event["inputs"]) - len(values))
        asked = {"data": data, "fn_index": event["id"], "session_hash": self.session}
        if event_data is not None:
            asked["event_data"] = event_data
        self.http.post("gradio_api/queue/join", json=asked).raise_for_status()

    def ask(self, name: str, values: list, event_data: Any = None) -> list:
        """The answer of a handler, in its queue: the values of its outputs."""
        self.join(name, values, event_data)
        asked = {"session_hash": self.session}
        with self.http.stream("GET", "gradio_api/queue/data", params=asked) as answers:
            for line in answers.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"])
                    return message["output"]["data"]
        raise RuntimeError("the queue closed without an answer")

    def show(self, content: bytes, checkpoint: str) -> dict[str, Any]:
        """What a page does with a picture of its visitor's: the viewer's value."""
        file = self.send(content)
        self.ask("on_file", [file])
        return self.ask("on_show", [file, checkpoint, "as trained"])[0]

    def fetch(self, address: str) -> bytes:
        return self.http.get(address).raise_for_status().content
