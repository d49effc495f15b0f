"""ViT Explorer: the app.  `python app.py` opens it; `python app.py --help` says what else it can do.

On a Hugging Face Space this file is the entry (`app_file`); strangers reach it there, so folders are closed.
"""

import argparse
import os
import sys

# before gradio is imported: nothing is sent anywhere
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

EXAMPLES = """
examples:
  python app.py                                  the bundled checkpoints, on this machine only
  python app.py --checkpoint runs/cifar10        also your own training run, even while it is going on
  python app.py --checkpoint facebook/dino-vits8 a published model from the Hugging Face Hub
  python app.py --host 0.0.0.0                   for everyone on your network, at http://YOUR-ADDRESS:7860
  python app.py --host 0.0.0.0 --no-public       the same, for people you trust: folders and live runs, too
  python app.py --share                          for everyone with the link, through Gradio's tunnel
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="See inside a Vision Transformer, in your browser.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default=None, help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=None, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's tunnel")
    parser.add_argument("--open", action="store_true", help="open the browser")
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
    host = options.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    return options.share or "SPACE_ID" in os.environ or host not in ("127.0.0.1", "localhost", "::1")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    from explorer.session import Session  # here, so that --help answers at once
    from explorer.ui import build, launch_options
    from vit.card import CheckpointError

    session = Session(public=is_public(options), extra=tuple(options.checkpoint))
    try:
        if not session.names():
            raise CheckpointError("There is no checkpoint to show: train one with `python train.py shapes`.")
        for name in options.checkpoint:
            session.model(name)
    except (CheckpointError, OSError) as error:
        raise SystemExit(f"app.py: {error}") from error
    demo = build(session)
    demo.queue(default_concurrency_limit=4, max_size=64)
    try:
        demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            inbrowser=options.open,
            **launch_options(session),
        )
    except OSError as error:
        taken = options.port is not None and "port" in str(error)
        why = f"port {options.port} is taken: give another --port, or leave it out." if taken else error
        raise SystemExit(f"app.py: {why}") from error


def command() -> None:
    """`vit-explorer`: the page, or with a command's name what `python -m explorer` makes without one."""
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        from explorer.cli.commands import main as figures

        sys.exit(figures(sys.argv[1:], "vit-explorer"))
    main()


if __name__ == "__main__":
    main()
