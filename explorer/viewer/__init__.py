"""The viewer's houses without a server: a page that holds its own bytes, and that page in a notebook cell.

The third house, Gradio, is `explorer.viewer.host`.
"""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from explorer.viewer.script import FOLDER, state_names, viewer_script


def viewer_html(
    head: bytes,
    layers: Sequence[bytes],
    embeddings: bytes | None = None,
    maps: Iterable[bytes] = (),
    *,
    methods: Sequence[dict[str, Any]] = (),
    title: str = "ViT",
    state: dict[str, Any] | None = None,
) -> str:
    """One self-contained page from payload messages: works from a file, offline, in a slide deck.

    methods: labels of the maps, [{"name", "label", "about", "depends"}, ...] as in `host`. Raises ValueError
    for a state that the viewer does not know.
    """
    known = state_names()
    if unknown := (state or {}).keys() - set(known):
        raise ValueError(f"The viewer knows no {', '.join(sorted(unknown))}: give {', '.join(known)}.")
    messages = {
        "head": text(head),
        "layers": [text(one) for one in layers],
        "maps": [text(one) for one in maps],
        "embeddings": text(embeddings) if embeddings else None,
    }
    options = {"address": True, "state": state or {}, "methods": list(methods)}
    return PAGE.format(
        title=html.escape(title),
        css=(FOLDER / "viewer.css").read_text(encoding="utf-8"),
        js=viewer_script(),
        messages=script_json(messages),
        options=script_json(options),
    )


def framed(page: str, height: int) -> str:
    """A page as an element for a notebook cell, apart from the notebook's own styles and scripts."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" style="width: 100%; height: {height}px; border: 0" '
        'title="Viewer of a Vision Transformer"></iframe>'
    )


def text(message: bytes) -> str:
    return base64.b64encode(message).decode()


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{
  color-scheme: light dark;
  --body-text-color: light-dark(#1d2330, #e6e8ee);
  --background-fill-primary: light-dark(#ffffff, #14161b);
  --background-fill-secondary: light-dark(#f3f4f7, #1d2027);
  --border-color-primary: light-dark(#dfe2e8, #333843);
  --color-accent: light-dark(#e8590c, #ff922b);
}}
body {{ margin: 0; background: var(--background-fill-primary); font: 14px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1900px; margin: 0 auto; padding: 16px; color: var(--body-text-color); }}
h1 {{ font-size: 17px; line-height: 24px; font-weight: 600; margin: 0 0 12px; }}
{css}
</style>
<main><h1>{title}</h1><div id="viewer"></div></main>
<script>
{js}
ViTViewer.embedded(document.getElementById("viewer"), {messages}, {options});
</script>
</html>
"""
