"""A visitor without a browser: uploads, waits for its turn in the queue, and fetches what a viewer would.

By Python's own http.client: with a more comfortable one the visitors took a quarter of the processor
from the app that they measure.
"""

import json
import secrets
from functools import cache
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit


@cache
def events_of(url: str) -> list[dict[str, Any]]:
    with Client(url, timeout=60) as client:
        return json.loads(client.get("config"))["dependencies"]


class Client:
    """One open page. address: whom a proxy in front of the app would name, for a visitor from elsewhere."""

    def __init__(self, url: str, address: str = "", timeout: float = 300):
        self.session, self.url = secrets.token_hex(8), url
        self.headers = {"x-forwarded-for": address} if address else {}
        place = urlsplit(url)
        self.heart, self.line = (
            HTTPConnection(str(place.hostname), place.port, timeout=timeout) for _ in range(2)
        )

    def __enter__(self) -> "Client":
        self.heart.request("GET", f"/gradio_api/heartbeat/{self.session}", headers=self.headers)
        self.beat = self.heart.getresponse()  # an open heartbeat is an open tab
        return self

    def __exit__(self, *error: object) -> None:
        self.heart.close()
        self.line.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The handlers of the app, in their order: a page has them with it."""
        return events_of(self.url)

    def answer(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> HTTPResponse:
        """What the app begins to answer, whatever it is."""
        headers = self.headers | ({"content-type": kind} if kind else {})
        self.line.request(method, f"/{path.lstrip('/')}", body, headers)
        return self.line.getresponse()

    def whole(self, answer: HTTPResponse) -> bytes:
        """Raises RuntimeError for one that is no success."""
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status} {answer.reason}: {content[:200].decode(errors='replace')}")
        return content

    def get(self, path: str) -> bytes:
        return self.whole(self.answer("GET", path))

    def send(self, content: bytes, name: str = "files") -> dict[str, Any]:
        """An upload, as handlers take it."""
        border = secrets.token_hex(16)
        head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
        kind = f"multipart/form-data; boundary={border}"
        uploaded = json.loads(self.whole(self.answer("POST", "gradio_api/upload", body, kind)))
        return {"path": uploaded[0], "meta": {"_type": "gradio.FileData"}}

    def join(self, name: str, values: list, event_data: Any = None) -> None:
        """Take a place in the queue for one of the handlers. What it needs of states, the server fills in."""
        event = next(d for d in self.events if d["api_name"] == name)
        data = values + [None] * (len(event["inputs"]) - len(values))
        asked = {"data": data, "fn_index": event["id"], "session_hash": self.session}
        if event_data is not None:
            asked["event_data"] = event_data
        body = json.dumps(asked).encode()
        self.whole(self.answer("POST", "gradio_api/queue/join", body, "application/json"))

    def ask(self, name: str, values: list, event_data: Any = None) -> list:
        """The answer of a handler, in its queue: the values of its outputs."""
        self.join(name, values, event_data)
        answers = self.answer("GET", "gradio_api/queue/data?" + urlencode({"session_hash": self.session}))
        with answers:  # closed as soon as the answer is there, the rest unread
            for line in answers:
                message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"])
                    self.line.close()
                    return message["output"]["data"]
        raise RuntimeError("the queue closed without an answer")

    def show(self, content: bytes, checkpoint: str) -> dict[str, Any]:
        """What a page does with a picture of its visitor's: the viewer's value."""
        file = self.send(content)
        self.ask("on_file", [file])
        return self.ask("on_show", [file, checkpoint, "as trained"])[0]
