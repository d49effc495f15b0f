"""Debian's Firefox, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): Playwright drives only
a build of its own, which it downloads.

    with Firefox.start() as firefox:
        firefox.goto(url)
        firefox.evaluate("document.title")
"""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CI = os.environ.get("CI") == "true"
PATIENCE = 120  # seconds that a busy machine may take
PREFERENCES = {
    "remote.active-protocols": 1,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,  # a camera that is none
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    def __init__(self, socket: ClientConnection):
        self.socket, self.numbers = socket, itertools.count(1)
        self.log: list[str] = []  # errors of the page
        self.requests: list[str] = []  # addresses that were asked for
        self.send("session.new", capabilities={})
        self.context = self.send("browsingContext.getTree")["contexts"][0]["context"]
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])

    def send(self, method: str, timeout: float = PATIENCE, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        end = time.monotonic() + timeout
        while True:
            message = json.loads(self.socket.recv(timeout=max(0.1, end - time.monotonic())))
            if message.get("id") == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['message']}")
                return message["result"]
            self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "log.entryAdded" and params["level"] == "error":
            self.log.append(params["text"] or "")
        if message.get("method") == "network.beforeRequestSent":
            self.requests.append(params["request"]["url"])

    def goto(self, url: str) -> None:
        self.send("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def size(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        self.send("browsingContext.setViewport", context=self.context, viewport=viewport)

    def evaluate(self, expression: str, timeout: float = PATIENCE) -> Any:
        """The value of an expression in the page, as JSON carries it; a promise is waited for."""
        found = self.send(
            "script.evaluate",
            timeout,
            expression=f"(async () => JSON.stringify(await ({expression})) ?? 'null')()",
            target={"context": self.context},
            awaitPromise=True,
        )
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return json.loads(found["result"]["value"])

    def wait_for(self, expression: str, timeout: float = PATIENCE) -> Any:
        """The expression's value as soon as it is true."""
        end = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} did not become true. The page said: {self.log}")
            time.sleep(0.1)
        return value

    def press(self, *keys: str) -> None:
        """Keys of the keyboard, one after the other; "\\ue014" is the right arrow (WebDriver's table)."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keys", "actions": actions}
        self.send("input.performActions", context=self.context, actions=[source])

    def click(self, selector: str) -> None:
        """The middle of the first element that this selector finds."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        move = {"type": "pointerMove", "x": round(box[0]), "y": round(box[1])}
        actions = [move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        source = {"type": "pointer", "id": "mouse", "actions": actions}
        self.send("input.performActions", context=self.context, actions=[source])

    def screenshot(self, path: Path) -> None:
        data = self.send("browsingContext.captureScreenshot", context=self.context)["data"]
        path.write_bytes(base64.b64decode(data))

    @classmethod
    @contextmanager
    def start(cls, **more: Any) -> Iterator["Firefox"]:
        """A fresh one, with more preferences; a machine without Firefox skips the test, except in CI."""
        program = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
        if program is None:
            reason = "install firefox-esr (or set FIREFOX to the browser) to run this test"
            pytest.fail(reason) if CI else pytest.skip(reason)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            lines = [
                f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in (PREFERENCES | more).items()
            ]
            (Path(profile) / "user.js").write_text("".join(lines))
            command = [program, "--headless", "--no-remote", "--profile", profile]
            command += ["--remote-debugging-port", "0"]
            environment = os.environ | {"HOME": profile, "MOZ_CRASHREPORTER_DISABLE": "1"}
            process = subprocess.Popen(
                command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True
            )
            try:
                with connect(
                    address_of(process), max_size=None, open_timeout=PATIENCE, ping_interval=None
                ) as socket:
                    yield cls(socket)
            finally:
                process.kill()
                process.wait()


def address_of(process: subprocess.Popen[str]) -> str:
    """Where it listens, which it says on its standard error."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
            Thread(target=process.stderr.read, daemon=True).start()  # it would wait for one who reads on
            return match[1] + "/session"
    raise RuntimeError("Firefox ended before it could be driven.")
