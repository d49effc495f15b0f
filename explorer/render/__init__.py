"""Arrays to pictures: colour tables, overlays, contact sheets, charts, films.  Never a model.

A *map* is (h, w) floats, one per patch; a *picture* is (height, width, 3) uint8; a chart is a
matplotlib `Figure` made without pyplot, so that many threads can draw at once.
L layers, H heads, T tokens, K classes, (h, w) patches.
"""

from explorer.render.charts import curves_chart, heads_chart, history_chart, intervals_chart, lens_chart
from explorer.render.colours import COLORMAPS, DEFAULT, DEFAULT_SIGNED, DIVERGING, SEQUENTIAL, THEMES, Theme
from explorer.render.files import gif, mp4, picture_of, png, svg
from explorer.render.paper import board, number, percent
from explorer.render.pictures import OPACITY, draw_box, draw_grid, enlarge, overlay, paint, resize_map, tile
from explorer.render.scales import SCALES, UNIFORM_TOP, Scale, colorize, scale_for
from explorer.render.sheets import (
    confusion_figure,
    heads_table,
    ledger_figure,
    maps_figure,
    matches_figure,
    matrix_figure,
    sheet_figure,
    similarity_chart,
    weights_figure,
)

__all__ = [
    "COLORMAPS",
    "DEFAULT",
    "DEFAULT_SIGNED",
    "DIVERGING",
    "OPACITY",
    "SCALES",
    "SEQUENTIAL",
    "THEMES",
    "UNIFORM_TOP",
    "Scale",
    "Theme",
    "board",
    "colorize",
    "confusion_figure",
    "curves_chart",
    "draw_box",
    "draw_grid",
    "enlarge",
    "gif",
    "heads_chart",
    "heads_table",
    "history_chart",
    "intervals_chart",
    "ledger_figure",
    "lens_chart",
    "maps_figure",
    "matches_figure",
    "matrix_figure",
    "mp4",
    "number",
    "overlay",
    "paint",
    "percent",
    "picture_of",
    "png",
    "resize_map",
    "scale_for",
    "sheet_figure",
    "similarity_chart",
    "svg",
    "tile",
    "weights_figure",
]
