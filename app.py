"""ViT Explorer: the app.  `python app.py` opens it; `python app.py --help` says what else it can do.

On a Hugging Face Space this file is the entry (`app_file`); strangers reach it there, so folders are closed.
"""

import argparse
import errno
import os
import socket
import sys
import threading
from pathlib import Path

from explorer.upkeep import Workplace, keep_swept, many_descriptors, stop_on_term

# before gradio is imported: nothing is sent anywhere
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

EXAMPLES = """
examples:
  python app.py                                  the bundled checkpoints, on this machine only
  python app.py --window                         the same, as a window of its own
  python app.py --checkpoint runs/cifar10        also your own training run, even while it is going on
  python app.py --checkpoint facebook/dino-vits8 a published model from the Hugging Face Hub
  python app.py --host 0.0.0.0                   for everyone on your network, at http://YOUR-ADDRESS:7860
  python app.py --host 0.0.0.0 --no-public       the same, for people you trust: folders and live runs, too
  python app.py --share                          for everyone with the link, through Gradio's tunnel
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    installed = Path(sys.argv[0]).stem == "vit-explorer"
    parser = argparse.ArgumentParser(
        description="See inside a Vision Transformer, in your browser.",
        epilog=EXAMPLES.replace("python app.py", "vit-explorer") if installed else EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default=None, help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=None, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's tunnel")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument(
        "--window",
        action="store_true",
        help="open it as a window of its own, in Chromium, Chrome or Edge; else in the default browser",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME",
        help="a folder, a training run or a Hub id to offer first; may be given several times",
    )
    parser.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="strangers can reach it: they may not name folders, Hub models are bounded (8 new ones a day, "
        "1 GiB each), and so is the work of one request (default: on a Space, with --share, beyond this "
        "machine)",
    )
    options = parser.parse_args(arguments)
    if options.port is not None and not 0 < options.port < 65536:
        parser.error(f"--port must lie between 1 and 65535, not {options.port}")
    return options


def is_public(options: argparse.Namespace) -> bool:
    """Can strangers reach the page? The owner's word counts before ours."""
    if options.public is not None:
        return options.public
    host = host_of(options).strip("[]")
    return options.share or "SPACE_ID" in os.environ or host not in ("127.0.0.1", "localhost", "::1")


def host_of(options: argparse.Namespace) -> str:
    return options.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")


def check_environment() -> None:
    """Raises ValueError for what Gradio cannot read as a number: it would not say of which variable."""
    for name in ("GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS"):
        text = os.environ.get(name, "1").strip()
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise ValueError(f"{name} must be a number between 1 and 65535, not {text!r}: mend or unset it.")


def check_address(host: str, port: int | None) -> None:
    """Raises OSError, in a sentence, where nothing can listen at this address and port."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OSError(f"{host} is not known here: check --host.") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # where it means: also while old connections to it are being closed
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} is taken: give another --port, or leave it out."
            elif error.errno == errno.EACCES:
                why = f"port {port} is open to the system alone: give a --port from 1024 on, or leave it out."
            elif error.errno == errno.EADDRNOTAVAIL:
                why = f"this machine has no address {host}: check --host, or leave it out."
            else:
                why = f"nothing can listen at {host} ({error.strerror}): check --host and --port."
            raise OSError(why) from error


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    stop_on_term()
    many_descriptors()
    workplace = Workplace()  # before gradio is imported
    try:
        serve(options)
    except (ValueError, OSError) as error:  # what the project refuses is a ValueError with a sentence
        raise SystemExit(f"app.py: {error}") from error
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        workplace.close()


def serve(options: argparse.Namespace) -> None:
    """Open the page, and answer until somebody stops it."""
    host = host_of(options)
    check_environment()
    check_address(host, options.port)
    from explorer.connections import guard_connections
    from explorer.serve import open_queue  # here, so that --help answers at once
    from explorer.session import Session, give_back_memory
    from explorer.ui import build, keep_first, launch_options
    from explorer.window import open_window
    from vit.card import CheckpointError

    session = Session(public=is_public(options), extra=tuple(options.checkpoint))
    for name in options.checkpoint:
        session.model(name)
    session.open_bundled()
    for sentence in session.broken.values():
        print(f"app.py: left out {sentence}", file=sys.stderr)
    if not session.names():
        raise CheckpointError("There is no checkpoint to show: train one with `python train.py shapes`.")
    demo = build(session)
    open_queue(demo, session)
    guard_connections()
    keep_swept(give_back_memory, session.forget_fetched)
    threading.Thread(target=keep_first, args=(session,), daemon=True).start()
    demo.launch(
        server_name=f"[{host}]" if ":" in host.strip("[]") and "[" not in host else host,
        server_port=options.port,
        share=options.share,
        inbrowser=options.open,
        prevent_thread_lock=True,
        **launch_options(session, options.share),
    )
    if options.window:
        assert demo.local_url is not None  # launched
        if sentence := open_window(demo.local_url):
            print(sentence)
    demo.block_thread()


def command() -> None:
    """`vit-explorer`: the page, or with a command's name what `python -m explorer` makes without one."""
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        from explorer.cli.commands import main as figures

        sys.exit(figures(sys.argv[1:], "vit-explorer"))
    main()
    sys.stdout.flush()
    os._exit(0)  # at once: threads that still compute would end the process with an error of their own


if __name__ == "__main__":
    command()
