"""Show this folder on this machine: `python serve.py`, then open the address that it prints. Ctrl-C ends it.

Any web host will do as well. The two headers give the page threads, which make it faster; it works without
them as well.
"""

import argparse
import contextlib
import http.server
import sys
from functools import partial
from pathlib import Path

HEADERS = (
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cache-Control", "no-cache"),  # the page keeps its files itself
)


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".html": "text/html; charset=utf-8",
        ".css": "text/css",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".webp": "image/webp",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".gz": "application/octet-stream",
    }

    def end_headers(self):
        for name, value in HEADERS:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait: a browser opens many at once


def main() -> None:
    parser = argparse.ArgumentParser(description="Show this folder on this machine. Ctrl-C ends it.")
    parser.add_argument("port", nargs="?", type=int, default=8000, help="default: 8000; 0: any free one")
    port = parser.parse_args().port
    handler = partial(Handler, directory=Path(__file__).resolve().parent)
    try:
        server = Server(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {port} cannot be had ({error}): name another, as in  python serve.py 8123")
    with server:
        print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
