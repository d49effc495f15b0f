"""Whose rights a download uses: a stand-in for the Hub on loopback hears every header."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from test_pretrained import transformers_folder

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    folder: ClassVar[Path]
    heard: ClassVar[list[tuple[str, str | None]]]  # (path, authorization)

    def answer(self, body: bool = True) -> None:
        self.heard.append((self.path, self.headers.get("authorization")))
        if self.path.startswith("/api/"):
            files = [
                {"rfilename": f.name, "path": f.name, "type": "file", "size": f.stat().st_size, "oid": COMMIT}
                for f in self.folder.iterdir()
            ]
            about = files if "/tree/" in self.path else {"id": "some/one", "sha": COMMIT, "siblings": files}
            content, name = json.dumps(about).encode(), "api"
        else:
            name = self.path.partition("?")[0].rpartition("/")[2]
            content = (self.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    do_GET = answer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    transformers_folder(tmp_path / "files")
    Hub.folder, Hub.heard = tmp_path / "files", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


TRY = """
import sys
from pathlib import Path
from explorer.session import Session
from vit.hub import fetch
cache = Path(sys.argv[1])
fetch("owner/one", 10**9, cache)
fetch("nobody/one", 10**9, cache, token=False)
session = Session(public=True, extra=("offered/one",))
session.model("offered/one")
session.model("stranger/one")
"""


def test_the_owners_token_is_used_for_what_the_owner_offers(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    """A stranger's wish must not open the owner's private models; --checkpoint may."""
    url = f"http://127.0.0.1:{hub.server_address[1]}"
    env = os.environ | {"HF_ENDPOINT": url, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path / "home")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path / "cache")],
        cwd=Path(__file__).parent.parent, env=env, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for who, token in (("owner", True), ("offered", True), ("nobody", False), ("stranger", False)):
        heard = {path: said for path, said in Hub.heard if f"{who}/one" in path}
        assert any(path.endswith("model.safetensors") for path in heard), who
        assert set(heard.values()) == {"Bearer hf_secret" if token else None}, who
