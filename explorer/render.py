"""Arrays to pictures: colour tables, overlays, contact sheets, charts, films.  Arrays only, never a model.

A *map* is (h, w) floats, one per patch; a *picture* is (height, width, 3) uint8; a chart is a
matplotlib `Figure` made without pyplot, so that many threads can draw at once.
L layers, H heads, T tokens, K classes, (h, w) patches.
"""

import matplotlib
import numpy as np

# Perceptually uniform, so equal steps of a value look like equal steps. "viridis" and "cividis" stay
# readable for colour-blind eyes and in grey print; the last three are for maps with a sign: blue is
# below zero, red (or orange) above, the middle is zero.
SEQUENTIAL = ("viridis", "cividis", "magma", "inferno", "gray")
DIVERGING = ("RdBu_r", "PuOr_r", "berlin")
DEFAULT, DEFAULT_SIGNED = "viridis", "RdBu_r"


def _table(name: str) -> np.ndarray:
    table = (
        (matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    )
    table.flags.writeable = False
    return table


COLORMAPS: dict[str, np.ndarray] = {name: _table(name) for name in SEQUENTIAL + DIVERGING}
