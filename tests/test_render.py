"""Pictures are checked by what they show: where the hot patch lies, what a colour means, what is legible."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from explorer import render
from explorer.render import letters
from explorer.views.parts import color, map_png

RNG = np.random.default_rng(0)
GREY = np.full((30, 50, 3), 120, np.uint8)  # a 3 x 5 grid of patches of 10 pixels
NAMES = ["tench", "a class with a name much longer than any axis", "$100 and <b>", "gas pump"]


def hot(h: int, w: int, row: int, column: int) -> np.ndarray:
    values = np.zeros((h, w))
    values[row, column] = 0.5
    return values


def luminance(colors: np.ndarray) -> np.ndarray:
    """CIE L* of (N, 3) uint8."""
    return cv2.cvtColor((colors[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0, :, 0]


# colours ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", render.COLORMAPS)
def test_a_colour_table_is_matplotlibs_and_cannot_be_changed(name: str) -> None:
    table = render.COLORMAPS[name]
    assert table.shape == (256, 3) and table.dtype == np.uint8
    expected = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(table - expected).max() <= 0.51
    with pytest.raises(ValueError):
        table[0] = 0


def test_more_is_lighter_in_every_sequential_table() -> None:
    for name in render.SEQUENTIAL:
        assert (np.diff(luminance(render.COLORMAPS[name])) > -0.2).all(), name
        assert np.ptp(luminance(render.COLORMAPS[name])) > 60, name


def test_signs_look_equally_strong_and_zero_is_neutral() -> None:
    for name in render.DIVERGING:
        table = render.COLORMAPS[name].astype(int)
        assert np.ptp(table[127:129], axis=-1).max() < 20, f"{name}: zero has a colour"
        light = luminance(render.COLORMAPS[name])
        assert abs(light[0] - light[-1]) < 15, name


# scales -----------------------------------------------------------------------------------------------


def test_a_flat_head_looks_flat() -> None:
    noise = 1 + 0.01 * RNG.random((3, 5))
    place = render.scale_for(noise)(noise)
    assert np.ptp(place) < 0.011, "a scale that starts at the minimum would blow noise up to full contrast"


def test_each_scale_reaches_full_colour_where_its_name_says() -> None:
    maps = RNG.random((2, 3, 4, 5))
    assert np.allclose(render.scale_for(maps, "map").top[..., 0, 0], maps.max(axis=(-2, -1)))
    assert np.allclose(render.scale_for(maps, "layer").top[:, 0, 0, 0], maps.max(axis=(1, 2, 3)))
    assert np.allclose(render.scale_for(maps, "all").top, maps.max())
    uniform = render.scale_for(maps, "uniform", num_tokens=21)
    assert np.allclose(uniform(np.full((4, 5), 1 / 21)), 1 / render.UNIFORM_TOP)
    assert np.allclose(uniform[1, 2].top, uniform.top[1, 2])
    with pytest.raises(ValueError, match="number of tokens"):
        render.scale_for(maps, "uniform")


def test_a_signed_map_has_zero_in_the_middle() -> None:
    scale = render.scale_for(np.array([[-2.0, 0.0, 1.0]]))
    assert scale(np.array([[-2.0, 0.0, 1.0]])).tolist() == [[0.0, 0.5, 0.75]]
    assert scale.colormap == render.DEFAULT_SIGNED


def test_a_map_of_zeros_is_drawn() -> None:
    assert (render.overlay(GREY, np.zeros((3, 5))) == GREY).all()


# overlays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 4), (1, 3)])
def test_the_hot_patch_is_where_it_belongs_on_a_grid_that_is_not_square(row: int, column: int) -> None:
    drawn = render.overlay(GREY, hot(3, 5, row, column))
    changed = (drawn != GREY).any(axis=-1)
    expected = np.zeros((30, 50), bool)
    expected[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = True
    assert (changed == expected).all()
    full = np.round(0.1 * 120 + 0.9 * render.COLORMAPS["viridis"][255].astype(float))
    assert np.abs(drawn[expected] - full).max() <= 1


def test_cover_grows_with_the_value() -> None:
    values = np.array([[0.0, 0.25, 0.5, 1.0]])
    picture = np.full((10, 40, 3), 255, np.uint8)
    drawn = render.overlay(picture, values, colormap="gray").astype(float)
    for i, value in enumerate(values[0]):
        cover = 0.9 * value
        assert np.abs(drawn[5, 10 * i + 5] - (255 * (1 - cover) + 255 * value * cover)).max() <= 1.5


def test_a_signed_overlay_is_blue_below_and_red_above() -> None:
    drawn = render.overlay(np.full((10, 30, 3), 128, np.uint8), np.array([[-1.0, 0.0, 1.0]])).astype(int)
    (below, zero, above) = drawn[5, [5, 15, 25]]
    assert below[2] > below[0] + 50 and above[0] > above[2] + 50 and (zero == 128).all()


def test_smoothing_is_a_choice_and_keeps_the_peak() -> None:
    values = hot(3, 5, 1, 2)
    by_patch = render.resize_map(values, 30, 50)
    assert set(np.unique(by_patch)) == {0.0, 0.5}
    smooth = render.resize_map(values, 30, 50, smooth=True)
    assert len(np.unique(smooth)) > 20
    row, column = np.unravel_index(smooth.argmax(), smooth.shape)
    assert 10 <= row < 20 and 20 <= column < 30


def test_the_query_box_frames_its_patch_and_nothing_else() -> None:
    drawn = render.draw_box(GREY, (3, 5), (1, 4))
    changed = (drawn != GREY).any(axis=-1)
    assert changed[10:20, 40:50].sum() == changed.sum() > 0
    assert changed[10, 40:50].all() and changed[10:20, 49].all() and not changed[13:17, 43:47].any()


def test_grid_lines_lie_between_patches() -> None:
    changed = (render.draw_grid(GREY, (3, 5)) != GREY).any(axis=-1)
    assert changed[10].all() and changed[20].all() and changed[:, 40].all()
    assert not changed[1:10, 1:10].any()


def test_enlarging_repeats_pixels() -> None:
    large = render.enlarge(GREY, 100)
    assert large.shape == (60, 100, 3)
    assert (render.enlarge(large, 100) == large).all()


def test_tiles_stand_in_order() -> None:
    tiles = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((4, 5, 3), np.uint8)
    sheet = render.tile(tiles, gap=2, paper=99)
    assert sheet.shape == (2 * 4 + 2, 3 * 5 + 4, 3)
    assert sheet[0, 0, 0] == 0 and sheet[0, 14, 0] == 2 and sheet[9, 18, 0] == 5 and sheet[4, 0, 0] == 99


# figures ----------------------------------------------------------------------------------------------


LONG = "gas pump, gasoline pump, petrol pump, island dispenser of /a/folder/with/a/long/name/vit_large"


def figures(theme: str) -> dict[str, Figure]:
    """Every figure at ordinary and at awkward sizes, with names that are data, not markup."""
    x = np.linspace(0, 1, 9)
    curves = {name: RNG.random(9) for name in NAMES}
    wide = RNG.random((3, 21))
    heads = RNG.random((12, 12, 14, 14))
    return {
        "maps": render.maps_figure(
            GREY,
            {"Attention": wide, NAMES[1]: -wide, NAMES[2]: wide},
            query=(1, 20),
            title=NAMES[2],
            caption="x",
            theme=theme,
        ),
        "one map": render.maps_figure(
            GREY, {"Attention": hot(3, 5, 0, 0)}, smooth=True, grid=True, theme=theme
        ),
        "six maps": render.maps_figure(GREY, {str(i): hot(3, 5, 0, 0) for i in range(6)}, theme=theme),
        "tall": render.maps_figure(
            GREY.transpose(1, 0, 2), {"a": hot(5, 3, 0, 0)}, title="tall", theme=theme
        ),
        "sheet": render.sheet_figure(
            heads,
            picture=GREY,
            query=(2, 3),
            scale=render.scale_for(heads, "uniform", 197),
            title="Where patch (2, 3) looks",
            caption="Each small map is one head. " * 3,
            theme=theme,
        ),
        "small sheet": render.sheet_figure(RNG.random((1, 1, 3, 5)), title="x", caption="y", theme=theme),
        "narrow sheet": render.sheet_figure(
            RNG.random((6, 3, 8, 8)), scale=render.scale_for(RNG.random((6, 3, 8, 8)), "layer"), theme=theme
        ),
        "deep sheet": render.sheet_figure(
            RNG.random((40, 16, 4, 4)), picture=GREY, title="deep", theme=theme
        ),
        "matrix": render.matrix_figure(
            RNG.random((197, 197)), (14, 14), ["[CLS]"], title="L3.H2", theme=theme
        ),
        "matrix without prefix": render.matrix_figure(RNG.random((15, 15)), (3, 5), (), theme=theme),
        "matrix with registers": render.matrix_figure(RNG.random((20, 20)), (3, 5), NAMES, theme=theme),
        "heads": render.heads_chart(
            RNG.random((12, 6)), label="px", reference=1.2, title="Distance", theme=theme
        ),
        "one head": render.heads_chart(RNG.random((1, 1)), label="px", theme=theme),
        "lens": render.lens_chart(RNG.dirichlet(np.ones(4), 13), NAMES, title="Lens", theme=theme),
        "curves": render.curves_chart(
            curves,
            fractions=x,
            others=[RNG.random(9)] * 3,
            random=RNG.random((5, 9)),
            control=RNG.random(9),
            control_name="centre",
            title="Deletion",
            theme=theme,
        ),
        "intervals": render.intervals_chart(
            NAMES,
            np.sort(RNG.random((4, 3))),
            label="score",
            reference=0.5,
            reference_label="centre prior",
            marked=[True, False, False, True],
            title="Faithfulness",
            theme=theme,
        ),
        "confusion": render.confusion_figure(RNG.integers(0, 50, (4, 4)), NAMES, title="Test", theme=theme),
        "large confusion": render.confusion_figure(
            RNG.integers(0, 50, (100, 100)), [f"class {i}" for i in range(100)], theme=theme
        ),
        "history": render.history_chart(
            x,
            {"train": RNG.random(9)},
            {"train": RNG.random(9), "test": np.full(9, np.nan)},
            title="x",
            theme=theme,
        ),
        "ledger": render.ledger_figure(
            RNG.normal(size=(12, 12)),
            RNG.normal(size=12),
            {"embedding": 0.3, "biases": -1.2},
            title="x",
            theme=theme,
        ),
        "small ledger": render.ledger_figure(
            RNG.normal(size=(2, 1)),
            RNG.normal(size=2),
            {"embedding": 0.3, "biases": -1.2},
            title="x",
            theme=theme,
        ),
        "weights": render.weights_figure(
            RNG.random((28, 16, 16, 3)), RNG.random((14, 14, 14, 14)), title="x", theme=theme
        ),
        "few weights": render.weights_figure(
            RNG.random((3, 4, 4, 3)), RNG.random((3, 5, 3, 5)), title="x", theme=theme
        ),
        "long names": render.sheet_figure(
            RNG.random((2, 2, 3, 3)), title=LONG, caption=f"{LONG} · {LONG}", theme=theme
        ),
        "ledger of a long name": render.ledger_figure(
            RNG.normal(size=(3, 4)),
            np.ones(3),
            {"embedding": 0.3},
            title=f"What gave {LONG} its logit",
            theme=theme,
        ),
        "thousand classes": render.lens_chart(
            RNG.dirichlet(np.ones(1000), size=25), [LONG] * 1000, title="x", theme=theme
        ),
        "large grid": render.weights_figure(
            RNG.random((28, 14, 14, 3)), RNG.random((37, 30, 37, 30)), title=LONG, theme=theme
        ),
        "board of long names": render.board(
            [
                lambda into: render.heads_chart(
                    RNG.random((3, 3)), label="px", title=LONG, theme=theme, into=into
                )
            ]
            * 2,
            title=LONG,
            caption=f"{LONG} · {LONG}",
            theme=theme,
        ),
        "board": render.board(
            [lambda into: render.heads_chart(RNG.random((3, 3)), label="px", theme=theme, into=into)] * 3,
            title="x",
            caption="y",
            theme=theme,
        ),
    }


def test_the_lens_names_the_answer_whatever_its_values_are() -> None:
    """Logits that were far higher at first leave no room for it otherwise."""
    values = np.zeros((3, 8))
    values[0, :7], values[-1, 7] = 20, 5
    for offset in (0, -100):
        figure = render.lens_chart(values + offset, list("abcdefgh"), value_name="value")
        lines = figure.axes[0].get_lines()
        assert len(lines) == 5 and lines[0].get_label().startswith("h  ") and lines[0].get_lw() > 2


def test_tick_labels_keep_their_distance() -> None:
    for depth in (6, 12, 24, 48):
        figure = render.lens_chart(RNG.dirichlet(np.ones(5), size=depth + 1), list("abcde"))
        render.picture_of(figure, dpi=60)
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
        assert all(left.x1 + 1 < right.x0 for left, right in pairwise(boxes)), depth


def test_positions_of_a_large_grid_are_whole_maps() -> None:
    similarity = np.zeros((37, 30, 37, 30))
    similarity[1, 1] = 1  # of the first patch in 3 x 3 that is shown
    shown = render.weights_figure(RNG.random((7, 4, 4, 3)), similarity).axes[1].images[0].get_array()
    assert shown.shape[:2] == (12 * 38 - 1, 10 * 31 - 1)
    assert (shown[:37, :30] == shown[0, 0]).all() and (shown[38:75, :30] == shown[38, 0]).all()
    assert (shown[0, 0] != shown[38, 0]).any()


def ticks_out_of_view(axes: Axes) -> list[Text]:
    """matplotlib keeps them, and does not draw them."""
    hidden = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = axis.get_major_ticks()
        hidden += [tick.label1 for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return hidden


@pytest.mark.parametrize("theme", render.THEMES)
def test_no_word_is_cut_off_at_the_edge(theme: str) -> None:
    for name, figure in figures(theme).items():
        height, width, _ = render.picture_of(figure, dpi=60).shape
        unseen = {id(label) for axes in figure.findobj(Axes) for label in ticks_out_of_view(axes)}
        for text in figure.findobj(Text):
            if text.get_visible() and text.get_text().strip() and id(text) not in unseen:
                box = text.get_window_extent()
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                assert inside, (
                    f"{name}: {text.get_text()!r} reaches {box.extents.round()} of {width} x {height}"
                )


@pytest.mark.parametrize("theme", render.THEMES)
def test_the_paper_has_the_themes_colour(theme: str) -> None:
    corner = render.picture_of(render.heads_chart(RNG.random((2, 2)), label="px", theme=theme), 40)[0, 0]
    assert tuple(corner) == tuple(bytes.fromhex(render.THEMES[theme].paper[1:]))


def test_ink_stands_out_from_paper() -> None:
    for theme in render.THEMES.values():
        shown = [theme.paper, theme.ink, theme.muted, *theme.series, *theme.signs]
        light = luminance(np.array([list(bytes.fromhex(color[1:])) for color in shown], np.uint8))
        assert abs(light[0] - light[1]) > 75 and (np.abs(light[0] - light[2:]) > 35).all()


def test_sheet_and_matrix_show_the_values_they_are_given() -> None:
    maps = np.zeros((4, 3, 2, 5))
    maps[2, 1, 1, 4] = 1
    sheet = render.sheet_figure(maps).axes[0].images[0].get_array()
    hottest = (sheet == render.COLORMAPS["viridis"][255]).all(axis=-1)
    rows, columns = np.nonzero(hottest)
    height, width = hottest.shape
    assert 2 / 4 < rows.mean() / height < 3 / 4 and 1 / 3 < columns.mean() / width < 2 / 3
    attn = RNG.random((16, 16))
    matrix = render.matrix_figure(attn, (3, 5), ["[REG1]"])
    assert (matrix.axes[0].images[0].get_array() == render.colorize(attn)).all()
    assert [text.get_text() for text in matrix.axes[0].texts] == ["[REG1]"], "a lone prefix token by its name"


def test_a_query_is_framed_where_a_map_depends_on_it() -> None:
    picture = render.enlarge(GREY)

    def framed(**options) -> list[bool]:
        figure = render.maps_figure(GREY, {"a": hot(3, 5, 0, 0)}, query=(2, 4), **options)
        return [bool((axes.images[0].get_array()[-1, -1] == 0).all()) for axes in figure.axes[:2]]

    assert (
        picture[-1, -1].any() and framed() == [True, True] and framed(without_query={"a"}) == [False, False]
    )


def test_the_reference_line_lies_at_its_value() -> None:
    axes = render.heads_chart(RNG.random((3, 2)), label="px", reference=116.5).axes[0]
    assert 116.5 in [line.get_ydata()[0] for line in axes.lines]
    assert axes.get_ylim()[1] > 116.5


def test_the_key_names_areas_in_the_order_given() -> None:
    x = np.linspace(0, 1, 5)
    figure = render.curves_chart(
        {"slow": 1 - x, "fast": (1 - x) ** 4}, fractions=x, random=np.stack([1 - x] * 2)
    )
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["slow  0.500", f"fast  {np.trapezoid((1 - x) ** 4, x):.3f}", "random orders  0.500"]


def test_the_ledgers_running_total_ends_at_the_logit() -> None:
    heads, mlps = RNG.normal(size=(3, 2)), RNG.normal(size=3)
    chart = render.ledger_figure(heads, mlps, {"embedding": 0.5, "biases": -0.1}).axes[1]
    total = heads.sum() + mlps.sum() + 0.4
    assert chart.get_title() == f"running total to {render.number(total)}"
    last = chart.patches[-1]
    assert np.isclose(last.get_x() + last.get_width(), total)


def test_numbers_have_a_true_minus_and_zero_has_none() -> None:
    assert (
        render.number(-0.001) == "0.00"
        and render.number(-1.5) == "−1.50"
        and render.number(2, "+.1f") == "+2.0"
    )


# files ------------------------------------------------------------------------------------------------


def test_svgs_are_well_formed_and_hold_no_missing_number() -> None:
    drawn = figures("light")
    for name in ("maps", "small sheet", "lens", "curves", "ledger"):
        text = render.svg(drawn[name])
        assert ET.fromstring(text).tag.endswith("svg"), name
        drawn_text = re.sub(rb'href="data:[^"]*"', b"", text.lower())  # letters of a picture mean nothing
        assert not re.search(rb"\bnan\b", drawn_text), name


def test_patches_stay_sharp_in_an_svg() -> None:
    text = render.svg(render.maps_figure(GREY, {"a": hot(3, 5, 0, 0)})).decode()
    assert "pixelated" in text


def test_a_png_has_the_size_that_its_inches_promise() -> None:
    figure = render.heads_chart(RNG.random((2, 2)), label="px")
    inches = figure.get_size_inches()
    assert Image.open(io.BytesIO(render.png(figure, dpi=100))).size == tuple(round(100 * x) for x in inches)
    assert np.asarray(Image.open(io.BytesIO(render.png(GREY)))).tolist() == GREY.tolist()


def frames() -> list[np.ndarray]:
    return [render.overlay(GREY, hot(3, 5, i % 3, i)) for i in range(5)]


def test_a_gif_plays_every_frame_in_true_colours() -> None:
    film = Image.open(io.BytesIO(render.gif(frames(), fps=4)))
    assert film.n_frames == 5 and film.info["loop"] == 0 and film.info["duration"] == 250
    for i, frame in enumerate(frames()):
        film.seek(i)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frame).mean() < 6


def test_an_mp4_plays_every_frame_also_at_odd_sizes(tmp_path: Path) -> None:
    odd = [frame[:29, :49] for frame in frames()]
    render.mp4(tmp_path / "film.mp4", odd, fps=3)
    video = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    read = [video.read()[1] for _ in range(5)]
    assert not video.read()[0] and video.get(cv2.CAP_PROP_FPS) == 3
    assert read[0].shape == (30, 50, 3)
    assert np.abs(cv2.cvtColor(read[3], cv2.COLOR_BGR2RGB)[:29, :49].astype(int) - odd[3]).mean() < 12


# threads ----------------------------------------------------------------------------------------------


def test_threads_draw_what_one_alone_draws() -> None:
    def draw(seed: int) -> bytes:
        values = np.random.default_rng(seed).random((4, 3))
        return render.picture_of(render.heads_chart(values, label=f"thread {seed}"), 60).tobytes()

    alone = [draw(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(12))) == alone


def test_no_figure_is_left_behind() -> None:
    render.picture_of(render.heads_chart(RNG.random((2, 2)), label="px"), 40)
    assert plt.get_fignums() == []


# letters ------------------------------------------------------------------------------------------------

HAN, NONE = "\u732b", "\U00012000"  # a cat in Chinese; cuneiform


def words_of(figure: Figure) -> set[str]:
    """Also those of ticks."""
    return {text.get_text() for text in figure.findobj(Text)}


def with_a_name(name: str) -> Figure:
    counts = np.eye(2, dtype=int)
    return render.confusion_figure(counts, [f"{name} 1", "dog"], title=f"a {name}")


def test_a_letter_is_drawn_with_a_font_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = frozenset(letters.letters_of(font_manager.findfont(letters.USUAL)) - {ord("d")})
    real = letters.letters_of
    lessened = lambda path: usual if path.endswith("DejaVuSans.ttf") else real(path)  # noqa: E731
    monkeypatch.setattr(letters, "letters_of", lessened)
    monkeypatch.setattr(letters, "other_fonts", lambda: (("cmr10", font_manager.findfont("cmr10")),))
    figure = with_a_name("cat")
    render.picture_of(figure)
    title = next(text for text in figure.findobj(Text) if text.get_text() == "a cat")
    assert title.get_fontfamily() == ["DejaVu Sans", "cmr10"] and "dog" in words_of(figure)


def test_names_that_no_font_can_draw_are_numbered_and_said(caplog, monkeypatch, recwarn) -> None:
    monkeypatch.setattr(letters, "other_fonts", lambda: ())
    figure = with_a_name(NONE)
    render.picture_of(figure)
    assert {"a [1]", "[1] 1", "dog"} <= words_of(figure)
    assert [record.getMessage() for record in caplog.records] == [
        f"No font here has all letters of some names, so figures number them ([1] is {NONE}): "
        "install one that has, such as Noto Sans, or write an .svg."
    ]
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_an_svg_holds_its_text_as_text(monkeypatch, recwarn) -> None:
    monkeypatch.setattr(letters, "other_fonts", lambda: ())
    text = render.svg(with_a_name(HAN)).decode()
    assert f">a {HAN}</text>" in text and ">dog</text>" in text
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert matplotlib.rcParams["svg.fonttype"] == "path"  # the setting of a user's own figures stays


def test_bytes_that_are_no_text_are_drawn() -> None:
    figure = with_a_name("caf\udce9")
    assert render.picture_of(figure).size and "a caf\ufffd" in words_of(figure)


# one rule for a map over a picture ---------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_pages_and_figures_lay_a_map_over_a_picture_alike(signed: bool) -> None:
    values = RNG.random((3, 5)) - 0.5 * signed
    scale = render.Scale(np.abs(values).max(keepdims=True), signed, "")
    ground = np.full((3, 5, 3), 120, np.uint8)
    drawn = render.overlay(ground, values, scale=scale)
    page = Image.open(io.BytesIO(base64.b64decode(map_png(values, signed).partition(",")[2]))).convert("RGBA")
    pixels = np.asarray(page).astype(float)
    cover = pixels[..., 3:] / 255
    assert np.abs(pixels[..., :3] * cover + ground * (1 - cover) - drawn).max() <= 1
    colour = tuple(np.asarray(page)[0, 0, :3])
    share = float(scale(values)[0, 0])
    assert color(share, signed) == f"rgb({colour[0]},{colour[1]},{colour[2]})"
