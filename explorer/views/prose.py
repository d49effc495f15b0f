"""The texts beside the views: the little of Markdown that their docstrings use, as HTML."""

import re
from html import escape

import gradio as gr

MARKS = ((r"\*\*(.+?)\*\*", r"<b>\1</b>"), (r"\*(.+?)\*", r"<em>\1</em>"), (r"`(.+?)`", r"<code>\1</code>"))
KINDS = (("ul", re.compile(r"- ")), ("ol", re.compile(r"\d+\. ")))


def prose(text: str) -> str:
    """Paragraphs, headings, lists, **bold**, *emphasis* and `code`; all else is text."""
    return "".join(map(block, re.split(r"\n\s*\n", text.strip())))


def block(text: str) -> str:
    if text.startswith("#"):
        marks, _, title = text.partition(" ")
        return f"<h{len(marks)}>{marked(title)}</h{len(marks)}>"
    for name, start in KINDS:
        if start.match(text):
            items = re.split(rf"^{start.pattern}", text, flags=re.MULTILINE)[1:]
            return f"<{name}>{''.join(f'<li>{marked(item)}</li>' for item in items)}</{name}>"
    return f"<p>{marked(text)}</p>"


def marked(text: str) -> str:
    text = escape(" ".join(text.split()), quote=False)
    for pattern, html in MARKS:
        text = re.sub(pattern, html, text)
    return text


def words(text: str, kind: str = "vx-lead") -> gr.HTML:
    """A view's text as a component."""
    return gr.HTML(f'<div class="{kind}">{prose(text)}</div>', apply_default_css=False)
