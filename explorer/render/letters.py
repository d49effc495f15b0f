"""Letters of any script: other fonts of this machine for what the usual one lacks, else numbers for names."""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL = "DejaVu Sans"  # comes with matplotlib
LOG = logging.getLogger(__name__)


@cache
def letters_of(path: str) -> frozenset[int]:
    """The code points that a font file can draw; none if it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def lacking(texts: Iterable[str]) -> set[str]:
    """The letters in `texts` that the usual font does not have."""
    has = letters_of(font_manager.findfont(USUAL))
    return {letter for text in texts for letter in text if letter.isprintable() and ord(letter) not in has}


@cache
def other_fonts() -> tuple[tuple[str, str], ...]:
    """(family, path) of the upright, regular fonts of this machine, those without serifs first."""
    ours = matplotlib.get_data_path()  # what comes with matplotlib ends in a font of boxes for everything
    regular = {
        (font.name, font.fname)
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and font.weight in (400, "normal", "regular")
        if not font.fname.startswith(ours) and "emoji" not in font.name.lower()
    }
    return tuple(sorted(regular, key=lambda font: ("Sans" not in font[0], "Mono" in font[0], font)))


def fonts_with(letters: set[str]) -> tuple[list[str], set[str]]:
    """(families that have them, letters that none has)."""
    families, wanted = [], set(letters)
    for family, path in other_fonts():
        if not wanted:
            break
        found = {letter for letter in wanted if ord(letter) in letters_of(path)}
        if found:
            families.append(family)
            wanted -= found
    return families, wanted


def choose_fonts(figure: Figure, *, number: bool = True) -> None:
    """Let every letter of a figure be drawn. Where no font of this machine has a letter, words with it become
    numbers in brackets, and one sentence in the log says which they are; with number=False they stay: an SVG
    is drawn with the fonts of whoever opens it."""
    axes = [axis for each in figure.findobj(Axes) for axis in (each.xaxis, each.yaxis)]
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    words = [text.get_text() for text in texts] + [word for axis in axes for word in tick_words(axis)]
    letters = lacking(words)
    if not letters:
        return
    families, unknown = fonts_with(letters)
    for text in texts:
        text.set_fontfamily([USUAL, *families])
    for axis in axes:
        axis.set_tick_params(labelfontfamily=[USUAL, *families])
    if unknown and number:
        number_words(texts, axes, words, unknown)


def tick_words(axis: Axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def number_words(texts: Sequence[Text], axes: Sequence[Axis], words: list[str], unknown: set[str]) -> None:
    pattern = re.compile(rf"\S*[{re.escape(''.join(sorted(unknown)))}]\S*")
    found = dict.fromkeys(match for text in words for match in pattern.findall(text))
    numbers = {word: f"[{i}]" for i, word in enumerate(found, 1)}

    def legible(text: str) -> str:
        return pattern.sub(lambda match: numbers[match[0]], text)

    for text in texts:
        text.set_text(legible(text.get_text()))
    for axis in axes:
        names = tick_words(axis)
        if any(pattern.search(name) for name in names):
            axis.set_ticks(axis.get_ticklocs(), [legible(name) for name in names])
    say_once("; ".join(f"{number} is {word}" for word, number in numbers.items()))


@cache
def say_once(legend: str) -> None:
    LOG.warning(
        "No font here has all letters of some names, so figures number them (%s): "
        "install one that has, such as Noto Sans, or write an .svg.",
        legend,
    )
