"""training."""

import gradio as gr

from explorer.views.page import Page


def build(page: Page) -> None:
    gr.Markdown(__doc__ or "")
