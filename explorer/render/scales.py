"""From values to places in a colour table: what full colour stands for.  A *map* is (h, w) floats."""

from dataclasses import dataclass, replace

import numpy as np

from explorer.render.colours import COLORMAPS, DEFAULT, DEFAULT_SIGNED

SCALES = {  # what full colour stands for, as the legend says it
    "map": "own maximum",
    "layer": "maximum of the layer",
    "all": "maximum of all",
    "uniform": "× uniform",
}
UNIFORM_TOP = 8  # the "uniform" scale ends at eight times what a head that looks everywhere gives


@dataclass(frozen=True, eq=False)
class Scale:
    """From values to [0, 1], the place in a colour table. Never stretched to a minimum: zero stays
    zero, so a flat map looks flat. With a sign the table runs from -top to top."""

    top: np.ndarray  # broadcasts against the maps, (..., 1, 1)
    signed: bool
    words: str
    unit: float = 1.0  # what the legend counts in

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        part = maps / np.maximum(self.top, 1e-12)
        return np.clip((part + 1) / 2 if self.signed else part, 0, 1)

    def __getitem__(self, index: int | tuple[int, ...]) -> "Scale":
        """The scale of one map out of the stack that the scale was made for."""
        return replace(self, top=self.top[index])

    @property
    def colormap(self) -> str:
        return DEFAULT_SIGNED if self.signed else DEFAULT


def scale_for(maps: np.ndarray, name: str = "map", num_tokens: int | None = None) -> Scale:
    """The scale called `name` for a stack of maps (L, H, h, w), (H, h, w) or (h, w).

    "map": own maximum; "layer": maximum over the heads (the axis before h, w); "all": maximum over
    everything; "uniform": `UNIFORM_TOP` times 1 / num_tokens.
    """
    maps = np.asarray(maps)
    size = np.abs(maps)
    signed = bool((maps < 0).any())
    ones = np.ones((*maps.shape[:-2], 1, 1))
    if name == "uniform":
        if not num_tokens:
            raise ValueError('The "uniform" scale needs the number of tokens.')
        return Scale(ones * UNIFORM_TOP / num_tokens, signed, SCALES[name], 1 / num_tokens)
    over = {"map": 2, "layer": min(3, maps.ndim), "all": maps.ndim}[name]  # how many of the last axes
    top = size.max(axis=tuple(range(-over, 0)), keepdims=True)
    return Scale(ones * top, signed, SCALES[name])


def colorize(maps: np.ndarray, scale: Scale | None = None, colormap: str | None = None) -> np.ndarray:
    """Maps (..., h, w) to colours (..., h, w, 3) uint8, one pixel per patch."""
    scale = scale or scale_for(maps)
    return COLORMAPS[colormap or scale.colormap][np.floor(scale(maps) * 255 + 0.5).astype(np.uint8)]
