"""The lesson's JavaScript and its looks, as a page gets them."""

import functools
from pathlib import Path

from explorer.viewer.script import joined

FOLDER = Path(__file__).parent


@functools.cache
def lesson_script() -> str:
    """All of the lesson, as the global `ViTLesson`: see js/index.js."""
    return joined([FOLDER / "js" / "index.js"], "ViTLesson")


@functools.cache
def lesson_css() -> str:
    return (FOLDER / "lesson.css").read_text(encoding="utf-8")
