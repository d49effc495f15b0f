"""Colour tables of maps, and the themes of everything around them."""

from dataclasses import dataclass

import matplotlib
import numpy as np

# Perceptually uniform: equal steps of a value look like equal steps. "viridis" and "cividis" stay
# readable for colour-blind eyes and in grey print. The last three are for maps with a sign: the
# middle is zero, blue (or green) below, red (or brown) above.
SEQUENTIAL = ("viridis", "cividis", "magma", "inferno", "gray")
DIVERGING = ("RdBu_r", "BrBG_r", "berlin")  # for maps with a sign, the usual one first
DEFAULT, DEFAULT_SIGNED = "viridis", DIVERGING[0]


def _table(name: str) -> np.ndarray:
    table = (matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round()
    table = table.astype(np.uint8)
    table.flags.writeable = False
    return table


COLORMAPS: dict[str, np.ndarray] = {name: _table(name) for name in SEQUENTIAL + DIVERGING}


@dataclass(frozen=True)
class Theme:
    """Colours of everything around the data. `series` are Okabe and Ito's, safe for all eyes."""

    paper: str
    ink: str
    muted: str
    faint: str
    series: tuple[str, ...]
    signs: tuple[str, str]  # for bars below and above zero, as in DEFAULT_SIGNED


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1c1f24",
        muted="#5f6670",
        faint="#d9dce1",
        series=("#0072b2", "#d55e00", "#009e73", "#b5568f", "#b07a00", "#2b8fc7", "#6b4fbb"),
        signs=("#2166ac", "#b2182b"),
    ),
    "dark": Theme(
        paper="#14171c",
        ink="#eceef1",
        muted="#9aa2ad",
        faint="#363c45",
        series=("#56b4e9", "#ff8f4a", "#2fc79b", "#e39ac6", "#f0c840", "#9fd3f5", "#b3a1f2"),
        signs=("#6aaee6", "#f0806c"),
    ),
}
