"""The viewer in a real browser, as a page of its own: what a person sees, does and hears.

Pixels are read back from the canvas and compared with colours computed here from the trace; what may differ
is the quantisation that explorer/payload.py promises, seen through the colour table.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from playwright.sync_api import Browser, Page, expect

from explorer import maps, pairs, payload, show
from explorer.methods import METHODS
from explorer.payload import maps_payload, pack, payloads, unpack
from explorer.render import COLORMAPS
from explorer.viewer import viewer_html
from explorer.viewer.script import viewer_script
from vit import ViT, trace
from vit.card import Card
from vit.trace import Trace, ZeroHeads

pytestmark = pytest.mark.browser

CARD = Card(name="tiny", class_names=("ant", "bee", "cat", "dog", "eel", "fox", "gnu"))
L, H, PRE, GRID = 3, 4, 3, (3, 5)  # layers, heads, [CLS] and two registers, patches
T = PRE + GRID[0] * GRID[1]
READY = "window.__vit?.data && __vit.data.loaded === __vit.data.L && __vit.perf.first !== null"


# ---- what is opened --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> ViT:
    torch.manual_seed(1)
    return randomised(ViT(tiny_config(num_registers=2)))


def sharp(found: Trace) -> Trace:
    """The trace with attention that differs from token to token: a random model's is nearly flat."""
    noise = torch.randn(found.attn.shape, generator=torch.Generator().manual_seed(2))
    return replace(found, attn=(2 * noise).softmax(dim=-1))


@pytest.fixture(scope="module")
def found(model: ViT) -> Trace:
    torch.manual_seed(3)
    return sharp(trace(model, torch.rand(3, 12, 20) * 2 - 1))


@pytest.fixture(scope="module")
def page_file(model: ViT, found: Trace, tmp_path_factory) -> Path:
    return show(found, CARD, model).save(tmp_path_factory.mktemp("viewer") / "view.html")


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Open]:
    """visit(hash="", width=1440, ...) -> a loaded page; at the end, no page has complained or called out."""
    contexts, complaints = [], []

    def visit(
        file: Path = page_file,
        address: str = "",
        width: int = 1440,
        height: int = 900,
        served: bool = False,
        **options,
    ) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.add_init_script("window.vitDebug = true")
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if ours(message.text) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if outside(request.url) else None)
        context.route(SERVED + "*", lambda route: route.fulfill(path=file, content_type="text/html"))
        page.goto((SERVED if served else file.as_uri()) + (f"#{address}" if address else ""))
        page.wait_for_function(READY)
        settle(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def ours(message: str) -> bool:
    return "willReadFrequently" not in message  # said of this test's own reading back


SERVED = "http://viewer.test/"  # where a test has the page from a server: a file has no link to copy


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:", SERVED))


# ---- what is seen ----------------------------------------------------------------------------------


def colors(values: torch.Tensor, high: float, name: str = "viridis") -> np.ndarray:
    """Each number's colour, and those of the numbers around it that quantisation may turn it into."""
    level = 255 * np.sqrt(np.maximum(values.numpy(), 0) / high)  # one step of the bytes is about one of these
    slack = 2 + 0.01 * level
    steps = [(level + part * slack).round().clip(0, 255).astype(int) for part in (-1, -0.5, 0, 0.5, 1)]
    return COLORMAPS[name][np.stack(steps)].astype(int)


def shows(pixels: np.ndarray, values: torch.Tensor, high: float) -> bool:
    """Whether the pixels (h, w, 3) are the colours of the values (h, w)."""
    between = colors(values, high)
    return bool((pixels >= between.min(axis=0) - 2).all() and (pixels <= between.max(axis=0) + 2).all())


def assert_shows(pixels: np.ndarray, values: torch.Tensor, high: float) -> None:
    assert shows(pixels, values, high)


CELL = """([row, column]) => {
  const {size, sheet, canvas} = __vit.layoutOf(), [x, y] = sheet.at(row * sheet.cols + column);
  const image = canvas.getContext("2d").getImageData(x, y, size.cellWidth, size.cellHeight);
  const rows = [];
  for (let r = 0; r < sheet.cellHeight; r++) for (let c = 0; c < sheet.cellWidth; c++) {
    const at = ((r + 0.5) * size.unit | 0) * image.width + ((c + 0.5) * size.unit | 0);
    rows.push([...image.data.slice(4 * at, 4 * at + 3)]);
  }
  return rows;
}"""


def small_map(page: Page, row: int, column: int) -> np.ndarray:
    """The centre of every patch of one small map, (h, w, 3)."""
    return np.array(page.evaluate(CELL, [row, column])).reshape(*GRID, 3)


STAGE = """([index, h, w]) => {
  const canvas = document.querySelectorAll(".vit-picture")[index];
  const context = canvas.getContext("2d"), found = [];
  for (let r = 0; r < h; r++) for (let c = 0; c < w; c++)
    found.push([(c + 0.25) * canvas.width / w, (r + 0.25) * canvas.height / h]);
  return found.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
}"""


def stage(page: Page, index: int = 0) -> np.ndarray:
    return np.array(page.evaluate(STAGE, [index, *GRID]))[:, :3].reshape(*GRID, 3)


def settle(page: Page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state(page: Page) -> dict:
    return page.evaluate("({...__vit.state})")


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()
    settle(page)


def point_at(page: Page, patch: int, index: int = 0) -> None:
    box = page.locator(".vit-picture").nth(index).bounding_box()
    row, column = divmod(patch, GRID[1])
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / GRID[1], box["y"] + (row + 0.5) * box["height"] / GRID[0]
    )
    settle(page)


def click_patch(page: Page, patch: int) -> None:
    point_at(page, patch)
    page.mouse.down()
    page.mouse.up()
    settle(page)


def point_at_cell(page: Page, row: int, column: int) -> None:
    box = page.locator(".vit-sheet canvas").bounding_box()
    x, y = page.evaluate(
        "([r, c]) => { const {size, sheet} = __vit.layoutOf(), [x, y] = sheet.at(r * sheet.cols + c);"
        "return [(x + size.cellWidth / 2) / size.dpr, (y + size.cellHeight / 2) / size.dpr]; }",
        [row, column],
    )
    page.mouse.move(box["x"] + x, box["y"] + y)
    settle(page)


def patch_map(found: Trace, layer: int, head: int, query: int) -> torch.Tensor:
    return found.attn[layer, head, query, PRE:].reshape(GRID)


# ---- claims ----------------------------------------------------------------------------------------


def test_every_small_map_is_the_attention_of_its_head(visit: Open, found: Trace):
    page = visit()
    for layer in range(L):
        for head in range(H):
            truth = patch_map(found, layer, head, 0)
            assert_shows(small_map(page, layer, head), truth, truth.max().item())
        for column, fused in ((H, found.attn[layer].mean(0)), (H + 1, found.attn[layer].amax(0))):
            truth = fused[0, PRE:].reshape(GRID)
            assert_shows(small_map(page, layer, column), truth, truth.max().item())


def test_hovering_a_patch_asks_every_head_about_it(visit: Open, found: Trace):
    page = visit()
    for patch in (7, 0, 14):
        point_at(page, patch)
        for layer, head in ((0, 0), (1, 3), (2, 1)):
            truth = patch_map(found, layer, head, PRE + patch)
            assert_shows(small_map(page, layer, head), truth, truth.max().item())


def test_the_overlay_shows_the_chosen_head_over_the_image(visit: Open, found: Trace):
    page = visit(address="fuse=one&layer=1&head=2&fade=0&opacity=1&query=9")
    truth = patch_map(found, 1, 2, 9)
    assert_shows(stage(page), truth, truth.max().item())


def test_hover_is_not_pin(visit: Open):
    page = visit()
    expect(page.locator(".vit-readout")).to_contain_text("[CLS] gives")
    point_at(page, 7)
    expect(page.locator(".vit-readout")).to_contain_text("patch (1, 2) gives")
    assert state(page)["query"] == 0
    page.mouse.move(5, 5)
    expect(page.locator(".vit-readout")).to_contain_text("[CLS] gives")
    click_patch(page, 8)
    page.mouse.move(5, 5)
    settle(page)
    expect(page.locator(".vit-readout")).to_contain_text("patch (1, 3) gives")
    point_at(page, 2)  # pinned: the pointer reads values and changes nothing
    expect(page.locator(".vit-readout")).to_contain_text("patch (1, 3) gives")
    expect(page.locator(".vit-pane .vit-pane-value").first).to_contain_text("(0, 2)")
    page.keyboard.press("Escape")
    assert not state(page)["pinned"]


def test_the_sentence_says_the_true_shares(visit: Open, found: Trace):
    page = visit(address="fuse=one&layer=2&head=3&query=6")
    shares = found.attn[2, 3, 6]
    expect(page.locator(".vit-readout")).to_contain_text("gives")
    said = page.locator(".vit-readout").inner_text().replace("\u00a0", " ")
    assert said.startswith("L2.H3")
    values = [float(v) / 100 for v in re.findall(r"([\d.]+) %", said)]
    expected = shares.sort(descending=True).values[: len(values)].tolist()
    assert len(values) == 4 and np.allclose(values, expected, atol=0.006)
    expect(page.locator(".vit-gauge")).to_contain_text("on prefix tokens")
    gauge = float(page.locator(".vit-gauge").inner_text().split("\u00a0")[0]) / 100
    assert abs(gauge - shares[:PRE].sum().item()) < 0.006


def test_hovering_a_small_map_previews_that_head_and_a_click_keeps_it(visit: Open):
    page = visit()
    point_at_cell(page, 1, 2)
    expect(page.locator(".vit-readout b")).to_have_text("L1.H2")
    page.mouse.move(5, 5)
    expect(page.locator(".vit-readout b")).to_have_text("L2, mean of 4 heads")
    point_at_cell(page, 0, 3)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    expect(page.locator(".vit-readout b")).to_have_text("L0.H3")


def test_direction_reads_the_column(visit: Open, found: Trace):
    page = visit(address="query=10")
    choose(page, "Is looked at by")
    for layer, head in ((0, 1), (2, 2)):
        truth = found.attn[layer, head, PRE:, 10].reshape(GRID)
        assert_shows(small_map(page, layer, head), truth, truth.max().item())
    expect(page.locator(".vit-readout")).to_contain_text("gets most from")


def test_both_directions_stand_side_by_side(visit: Open, found: Trace):
    page = visit(address="query=10&direction=both&fuse=one&layer=1&head=1&fade=0&opacity=1")
    expect(page.locator(".vit-pane:visible")).to_have_count(2)
    sides = found.attn[1, 1, 10, PRE:], found.attn[1, 1, PRE:, 10]
    high = max(side.max().item() for side in sides)  # one scale for both
    expect(page.locator(".vit-legend .vit-quiet")).to_have_text("both maps, √")
    for index, values in enumerate(sides):
        seen, truth = stage(page, index).reshape(-1, 3), values
        keep = torch.arange(15) != 10 - PRE  # the query's frame lies over its own patch
        assert_shows(seen[keep.numpy()], truth[keep], high)


def test_registers_can_be_asked_and_are_named(visit: Open, found: Trace):
    page = visit(address="fuse=one&layer=1&head=0")
    expect(page.locator(".vit-chip .vit-name")).to_have_text(["[CLS]", "[REG1]", "[REG2]"])
    page.locator(".vit-chip").nth(2).click()
    page.mouse.move(5, 5)
    settle(page)
    assert state(page)["query"] == 2 and state(page)["pinned"]
    truth = patch_map(found, 1, 0, 2)
    assert_shows(small_map(page, 1, 0), truth, truth.max().item())
    truth = found.attn[1, 0, 2, 1].item()  # words follow the maps, at the pace of a reader
    page.wait_for_function(
        """([token, truth]) => {
          const share = document.querySelectorAll(".vit-chip .vit-share")[token];
          return Math.abs(parseFloat(share.textContent) / 100 - truth) < 0.001;
        }""",
        arg=[1, truth],
    )


def test_a_flat_head_looks_flat_and_a_scale_can_be_shared(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    flat = found.attn.clone()
    flat[1, 2] = 1 / T
    page = visit(show(replace(found, attn=flat), CARD, model).save(tmp_path / "flat.html"), "scale=uniform")
    middle = COLORMAPS["viridis"][127:129].astype(int)
    cell = small_map(page, 1, 2).astype(int)
    assert (cell >= middle.min(0) - 2).all() and (cell <= middle.max(0) + 2).all()
    page.get_by_role("button", name="More").click()
    choose(page, "All")
    high = flat[:, :, 0, PRE:].max().item()
    assert_shows(small_map(page, 1, 2), patch_map(replace(found, attn=flat), 1, 2, 0), high)
    assert_shows(small_map(page, 2, 1), patch_map(found, 2, 1, 0), high)


def test_arrow_keys_reach_every_layer_head_and_patch(visit: Open):
    page = visit(address="fuse=one&layer=0&head=0")
    page.locator(".vit-picture").first.focus()

    def press(keys: str) -> tuple[int, int, str, int]:
        for key in keys.split():
            page.keyboard.press(key)
        now = state(page)
        return now["layer"], now["head"], now["fuse"], now["query"]

    assert press("ArrowDown ArrowRight ArrowRight") == (1, 2, "one", 0)
    assert press("ArrowUp ArrowUp") == (2, 2, "one", 0)  # around the end
    assert press("ArrowRight ArrowRight") == (2, 2 + 1, "mean", 0)
    first = press("Shift+ArrowRight")[3]
    assert first >= PRE  # from [CLS] onto the image
    assert press("Shift+ArrowRight")[3] == first + 1
    assert press("Shift+ArrowDown")[3] == first + 1 + GRID[1]
    assert press("Home")[3] == 0
    assert press("3")[2] == "max"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_keys_that_nobody_has_go_to_the_main_viewer_alone(visit: Open):
    page = visit(address="layer=0&fuse=one&head=0")
    page.evaluate(
        """() => {
          window.main = __vit;
          for (const tag of ["input", "article", "footer"]) document.body.append(document.createElement(tag));
          const source = {...main.data.source, opened: null};
          ViTViewer.mount(document.querySelector("article"), source, {state: {layer: 0}});
        }"""
    )
    page.wait_for_function(READY)
    layers = lambda: page.evaluate("[main.state.layer, __vit.state.layer]")  # noqa: E731
    page.keyboard.press("ArrowDown")
    assert layers() == [1, 0]
    page.locator("body > input").focus()
    page.keyboard.press("ArrowDown")
    assert layers() == [1, 0], "a field keeps its keys"
    page.locator(".vit-picture").nth(2).focus()
    page.keyboard.press("ArrowDown")
    assert layers() == [1, 1], "the other viewer has the focus"
    page.evaluate("""() => {
      const html = `<a href="#layer=1&query=4">to</a><details><summary>more</summary></details>`;
      document.body.insertAdjacentHTML("afterbegin", html);
    }""")
    for key, opened in (("Enter", True), ("Space", False)):
        page.locator("body > details > summary").press(key)
        assert page.locator("body > details").evaluate("(details) => details.open") is opened
    page.locator("body > a").press("Enter")
    page.wait_for_function("main.state.query === 4")
    assert not page.evaluate("main.state.pinned")
    page.evaluate("""() => {
      const before = location.href;
      location.hash = "layer=1&query=5";
      history.replaceState(null, "", before);  // as the viewer does, a moment after an act
    }""")
    page.wait_for_function("main.state.query === 5 && location.hash.includes('query=5')")
    page.evaluate("document.activeElement.blur(); document.querySelector('footer').style.height = '5000px'")
    page.evaluate("scrollTo(0, 4000)")
    page.keyboard.press("ArrowDown")
    assert layers() == [1, 1], "whoever reads further down scrolls"


def test_tab_alone_reaches_every_control(visit: Open):
    page = visit()
    page.get_by_role("button", name="More").click()
    page.locator(".vit-picture").first.focus()
    names = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate(
                "(e => e.ariaLabel || e.value || e.textContent || e.className)(document.activeElement)"
            )
        )
    text = " ".join(map(str, names))
    for name in (
        "attention",
        "row",
        "[REG1]",
        "Play",
        "Layer",
        "All keys",
        "viridis",
        "ant",
        "map",
    ):
        assert name in text, name
    unnamed = page.evaluate(
        """[...document.querySelectorAll(".vit-viewer :is(button, input, select, canvas[tabindex])")]
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"""
    )
    assert unnamed == []


def test_a_screen_reader_hears_what_is_shown(visit: Open):
    page = visit()
    page.locator(".vit-picture").first.focus()
    page.keyboard.press("ArrowUp")
    live = page.locator(".vit-sr[aria-live=polite]")
    expect(live).to_contain_text("L1, mean of 4 heads: [CLS] gives")
    expect(page.locator(".vit-picture").first).to_have_attribute(
        "aria-label", re.compile("L1, mean of 4 heads")
    )
    page.keyboard.press("d")
    page.keyboard.press("d")
    for at, said in enumerate(("Looks at. L1.* gives", "Is looked at by. L1.* gets most from")):
        expect(page.locator(".vit-picture").nth(at)).to_have_attribute("aria-label", re.compile(said))


def test_play_goes_through_depth_and_stops(visit: Open):
    page = visit(address="layer=0")
    page.get_by_role("button", name="Play through depth").click()
    page.wait_for_function("__vit.state.layer >= 1")  # a step lasts 0.7 s: a busy machine may miss one
    page.wait_for_function("__vit.state.layer === 2")
    expect(page.get_by_role("button", name="Play through depth")).to_be_visible()
    assert state(page)["layer"] == 2


def test_play_does_not_blend_where_motion_is_unwelcome(visit: Open, found: Trace):
    page = visit(address="layer=0&fuse=one&head=0&fade=0&opacity=1", reduced_motion="reduce")
    page.get_by_role("button", name="Play through depth").click()
    truths = [patch_map(found, layer, 0, 0) for layer in range(L)]
    assert not shows(stage(page), (truths[0] + truths[1]) / 2, truths[0].max().item()), (
        "a blend would be seen"
    )
    for layer in range(L):
        page.wait_for_function("(layer) => __vit.state.layer >= layer", arg=layer)
        seen = stage(page)  # of this layer or of the one before, and of nothing between
        assert any(shows(seen, truth, truth.max().item()) for truth in truths)


def test_a_link_brings_another_person_to_the_same_view(visit: Open):
    page = visit()
    click_patch(page, 11)
    page.get_by_role("button", name="More").click()
    page.locator("select").last.select_option("magma")
    choose(page, "Is looked at by")
    page.locator(".vit-picture").first.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function(
        "['magma', 'query=14', 'column', 'layer=1'].every((part) => location.hash.includes(part))"
    )
    address = page.evaluate("location.hash.slice(1)")
    other = visit(address=address)
    assert state(other) == state(page)
    other.reload()
    other.wait_for_function(READY)
    assert state(other) == state(page)


def test_an_address_with_nonsense_still_opens(visit: Open):
    page = visit(
        address="layer=99&head=-3&query=100000&mode=nonsense&colormap=x&scale=%3Cscript%3E&embedding=zzz"
    )
    now = state(page)
    assert (now["layer"], now["head"], now["query"], now["mode"]) == (L - 1, 0, T - 1, "attention")


def test_rollout_is_that_of_the_maps(visit: Open, found: Trace):
    page = visit(address="mode=rollout")
    rollouts = maps.rollout_all(found)
    cols = page.evaluate("__vit.layoutOf().sheet.cols")
    for layer in range(L):
        truth = rollouts[layer + 1, 0, PRE:].reshape(GRID)
        assert_shows(small_map(page, layer // cols, layer % cols), truth, truth.max().item())


def test_embeddings_show_colours_similarity_norms_positions_and_filters(
    visit: Open, found: Trace, model: ViT
):
    page = visit(address="mode=embeddings&fade=0&opacity=1&query=8")
    for name, said in (
        ("PCA colours", "principal components"),
        ("Similarity", "is most like"),
        ("Norms", "longest tokens"),
        ("Positions", "is most like"),
        ("Patch filters", "filters differ most"),
    ):
        choose(page, name)
        expect(page.locator(".vit-readout")).to_contain_text(said)
    choose(page, "Similarity")
    tokens = torch.nn.functional.normalize(found.tokens[L], dim=-1)
    truth = (tokens[8] @ tokens[PRE:].T).reshape(GRID)
    seen = stage(page).reshape(-1, 3)
    level = (255 * truth.flatten().clamp(0, 1)).numpy()
    between = np.stack([COLORMAPS["viridis"][(level + d).clip(0, 255).astype(int)] for d in (-2, 2)]).astype(
        int
    )
    keep = np.arange(15) != 8 - PRE
    assert ((seen >= between.min(0) - 2) & (seen <= between.max(0) + 2))[keep].all()


def test_methods_come_when_asked_for_and_are_drawn(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    head, embeddings, *layers = payloads(found, CARD, model)
    methods = [
        {"name": "one", "label": "Method one", "about": ""},
        {"name": "two", "label": "Method two", "about": ""},
    ]
    signed = torch.linspace(-1, 1, 15).reshape(GRID)
    target = int(found.logits.argmax())
    text = viewer_html(
        head, layers, embeddings, [maps_payload({"one": signed}, CARD, target)], methods=methods
    )
    file = tmp_path / "methods.html"
    file.write_text(text, encoding="utf-8")
    page = visit(file, "mode=method&fade=0&opacity=1")
    seen = stage(page).reshape(-1, 3)
    assert seen[0, 2] > seen[0, 0] and seen[14, 0] > seen[14, 2]  # blue is below zero, red above
    assert np.abs(seen[7].astype(int) - COLORMAPS["RdBu_r"][128]).max() <= 3  # zero is the middle
    page.locator("select:visible").first.select_option("two")
    expect(page.locator(".vit-readout")).to_contain_text("not in this file for this class")


def test_the_file_has_the_methods_that_its_trace_allows(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    explained = trace(model, found.image, target=int(found.logits.argmin()))
    answered, alone = replace(explained, target=None, attn_grad=None), {"attention", "rollout"}
    for one, with_model, has, lacks in (
        (explained, model, {*alone, "relevance", "gradcam", "logit_ledger"}, {"occlusion", "flow"}),
        (explained, None, {*alone, "relevance"}, {"gradcam", "logit_ledger"}),
        (answered, model, {*alone, "gradcam"}, {"relevance"}),
    ):
        file = show(one, CARD, with_model, mode="method").save(tmp_path / "methods.html")
        page = visit(file, "method=attention&fade=0&opacity=1")
        menu = page.get_by_label("Method", exact=True)
        names = set(menu.locator("option").evaluate_all("options => options.map((o) => o.value)"))
        assert has <= names and not names & lacks
        for name in names:
            menu.select_option(name)
            expect(page.locator(".vit-readout b")).to_have_text(METHODS[name].label)
            expect(page.locator(".vit-readout")).to_contain_text("strongest at")
            says_class = "for “" in page.locator(".vit-readout").text_content()
            assert says_class == METHODS[name].class_specific
    page = visit(
        show(explained, CARD, model).save(tmp_path / "explained.html"), "mode=method&method=relevance"
    )
    settle(page)
    truth = METHODS["relevance"](explained, model=model)
    cell = [
        option.get_attribute("value")
        for option in page.get_by_label("Method", exact=True).locator("option").all()
    ]
    columns = page.evaluate("__vit.layoutOf().sheet.cols")
    at = divmod(cell.index("relevance"), columns)
    assert_shows(small_map(page, *at), truth, truth.max().item())


def test_a_class_that_is_not_among_the_likeliest_is_named_and_followed(
    visit: Open, model: ViT, found: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(payload, "TOP_CLASSES", 2)
    last = int(found.logits.argmin())
    explained = trace(model, found.image, target=last)
    file = show(explained, CARD, model).save(tmp_path / "explained.html")
    page = visit(file, f"mode=method&method=relevance&target={last}")
    expect(page.locator(".vit-readout")).to_contain_text(f"for “{CARD.class_names[last]}”")

    after = replace(found, logits=-found.logits)  # the last becomes the first
    page = visit(blank_page(tmp_path / "edit.html", (found, model), (after, model)))
    expect(page.locator(".vit-class")).to_have_count(2)
    page.evaluate("a.setAfter(sources[1])")
    expect(page.locator(".vit-class")).to_have_count(3)
    shares = [trace.logits.softmax(dim=-1)[last].item() for trace in (found, after)]
    row = page.locator(".vit-class").first  # it is the answer now
    expect(row.locator(".vit-name")).to_have_text(CARD.class_names[last])
    said = re.findall(r"[\d.]+", row.locator(".vit-share").text_content())
    assert [float(number) for number in said] == pytest.approx([100 * share for share in shares], rel=0.05)
    assert "—" not in "".join(page.locator(".vit-class .vit-share").all_text_contents())
    assert page.locator(".vit-class[aria-pressed=true]").count() == 1


def test_a_class_that_is_overtaken_on_its_way_goes_on_from_where_it_is(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    """As under a live camera, whose answers come faster than rows move."""
    orders = [(7, 6, 5, 4, 3, 2, 1), (3, 7, 6, 5, 4, 2, 1), (5, 3, 7, 6, 4, 2, 1)]
    traces = [replace(found, logits=torch.tensor(order, dtype=torch.float32)) for order in orders]
    page = visit(blank_page(tmp_path / "overtaking.html", *[(trace, model) for trace in traces]))
    jumps = page.evaluate(
        """async () => {
          const { animate } = Element.prototype;  // rows stay where they are, on their way
          Element.prototype.animate = function (...how) {
            const moving = animate.apply(this, how);
            moving.pause();
            return moving;
          };
          const rows = () => [...document.querySelectorAll(".vit-class")], found = [];
          const top = (row) => row.getBoundingClientRect().top;
          const tops = () => Object.fromEntries(rows().map((row) => [row.dataset.key, top(row)]));
          const soon = () => new Promise((resolve) => setTimeout(resolve));
          for (const after of [1, 2]) {
            const old = rows()[0], shown = a.setAfter(sources[after]);
            let before;
            do { before = tops(); await soon(); } while (rows()[0] === old);
            const jumped = ([key, now]) => Math.abs(now - (before[key] ?? now));
            found.push(Math.max(...Object.entries(tops()).map(jumped)));
            await shown;
          }
          return [...found, document.getAnimations().length];
        }"""
    )
    assert max(jumps[:2]) < 8 and jumps[2] > 0, jumps


def test_what_is_pressed_while_another_trace_comes_is_pressed(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    """As under a live camera, whose traces come faster than a mouse is let go."""
    later = replace(found, logits=1.1 * found.logits)  # other numbers in the same order
    page = visit(blank_page(tmp_path / "press.html", (found, model), (later, model)))
    row = page.locator(".vit-class").nth(1)
    for what in (row, page.get_by_role("button", name="Who looks at this square?")):
        what.hover()
        page.mouse.down()
        before = row.text_content()
        page.evaluate("async () => { await a.setSource(sources[1]); sources.reverse(); }")
        assert row.text_content() != before
        page.mouse.up()
    second = int(found.logits.argsort(descending=True)[1])
    assert page.evaluate("heard.find(([name]) => name === 'target')[1].target") == second
    assert state(page)["direction"] == "column"


def test_of_a_trace_that_passes_comes_what_is_looked_at(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    page = visit(blank_page(tmp_path / "passing.html", (found, model)))
    page.evaluate(
        """() => { window.pass = async (state) => {
          const asked = [], layer = (l) => { asked.push(l); return sources[0].layer(l); };
          a.set({ layer: 0, ...state });
          await a.setSource({ head: sources[0].head, layer, passing: true });
          return asked.sort();
        }; }"""
    )
    assert page.evaluate("pass({ mode: 'embeddings', embedding: 'norms' })") == [0]
    assert page.evaluate("pass({ embedding: 'similarity' })") == [0, 1, 2]
    assert page.evaluate("pass({ mode: 'attention' })") == [0]
    page.get_by_role("button", name="Hide what it looks at").click()
    page.wait_for_function("a.state.patches.length === 1")
    most = found.attn[-1, :, 0, PRE:].mean(0).argmax()
    assert state(page)["patches"] == [int(most)]


def blank_page(file: Path, *traces: tuple[Trace, ViT]) -> Path:
    """A page with the script, the bytes of some traces, and no viewer yet."""
    packed = []
    for found, model in traces:
        head, _, *layers = (base64.b64encode(m).decode() for m in payloads(found, CARD, model))
        packed.append({"head": head, "layers": layers})
    folder = Path(__file__).parents[1] / "explorer" / "viewer"
    file.write_text(
        f"""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
        <style>{(folder / "viewer.css").read_text()}</style>
        <div id="a"></div><div id="b"></div><script>{viewer_script()}
        const heard = [], bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
        const sources = {json.dumps(packed)}.map((m) => (
          {{head: async () => bytes(m.head), layer: async (l) => bytes(m.layers[l])}}));
        const start = (id, source, options = {{}}) => ViTViewer.mount(document.getElementById(id), source,
          {{emit: (name, payload) => heard.push([name, payload]), ...options}});
        const a = start("a", sources[0], window.OPTIONS ?? {{intervene: true, link: "both"}});
        </script>""",
        encoding="utf-8",
    )
    return file


def test_another_source_keeps_the_state_and_never_shows_nothing(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    later = replace(found, attn=found.attn.flip(0))
    page = visit(blank_page(tmp_path / "two.html", (found, model), (later, model)))
    page.evaluate("a.set({layer: 1, head: 2, fuse: 'one', query: 9, pinned: true, scale: 'layer'})")
    chip = page.locator(".vit-chip").nth(1)
    chip.focus()
    settle(page)
    before = state(page)
    blank = page.evaluate(
        """async () => {
          let blank = 0, going = true;
          const watch = () => {
            const canvas = document.querySelector(".vit-sheet canvas");
            const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            if (!image.data.some((v) => v)) blank++;
            if (going) requestAnimationFrame(watch);
          };
          requestAnimationFrame(watch);
          await a.setSource(sources[1]);
          going = false;
          return blank;
        }"""
    )
    settle(page)
    assert blank == 0
    assert state(page) == before
    expect(chip).to_be_focused()
    truth = patch_map(later, 1, 2, 9)
    high = later.attn[1, :, 9, PRE:].max().item()
    assert_shows(small_map(page, 1, 2), truth, high)


def test_a_pair_whose_first_depth_did_not_come_can_be_asked_for_again(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    depths = (pairs.pair_depth_payload(found, found, depth) for depth in range(L + 1))
    messages = [pairs.pair_payload(found, found, CARD), *depths]
    page = visit(blank_page(tmp_path / "pair.html", (found, model)))
    page.evaluate(
        """async ([head, ...depths]) => {
          const { receive } = ViTViewer.mountPair(document.getElementById("b"));
          await receive({ head, depths: depths.map(() => "data:,") });
          await receive({ head, depths });
        }""",
        ["data:;base64," + base64.b64encode(message).decode() for message in messages],
    )
    assert page.evaluate("b.pair.message.cosine.length") > 0


def test_linked_viewers_look_at_the_same_place(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    other_model = randomised(ViT(tiny_config(image_size=(24, 40), depth=2)))  # 6 x 10 patches, no registers
    other = trace(other_model, torch.rand(3, 24, 40))
    page = visit(blank_page(tmp_path / "linked.html", (found, model), (other, other_model)), height=2400)
    page.evaluate("window.b = start('b', sources[1], {link: 'both'})")
    page.wait_for_function("b.data && b.data.loaded === 2")
    point_at(page, 7)  # row 1, column 2 of 3 x 5: the middle
    assert page.evaluate("b.hover.query") == 1 + 3 * 10 + 5
    click_patch(page, 7)
    page.keyboard.press("ArrowUp")
    settle(page)
    assert page.evaluate("[b.state.layer, b.state.pinned, b.state.query]") == [1, True, 36]


def test_hovering_one_viewer_changes_nothing_that_the_other_has_chosen(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    coarse = randomised(ViT(tiny_config(image_size=(4, 8), depth=2)))  # 1 x 2 patches, one layer less
    other = trace(coarse, torch.rand(3, 4, 8))
    page = visit(blank_page(tmp_path / "linked.html", (found, model), (other, coarse)), height=2400)
    page.evaluate("a.set({layer: 2, query: 10, pinned: true})")
    page.evaluate("window.b = start('b', sources[1], {link: 'both'})")
    page.wait_for_function("b.data && b.data.loaded === 2")
    assert page.evaluate("[b.state.layer, b.state.query, b.state.pinned]") == [1, 2, True], "told as it came"
    page.locator("#b .vit-sheet canvas").hover()
    settle(page)
    assert page.evaluate("[a.state.layer, a.state.query]") == [2, 10]


def test_another_model_forgets_what_it_does_not_have(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    fine = randomised(
        ViT(tiny_config(image_size=(24, 40), depth=2, num_heads=2))
    )  # 6 x 10 patches, no registers
    other = trace(fine, torch.rand(3, 24, 40))
    page = visit(blank_page(tmp_path / "two.html", (found, model), (other, fine)))
    page.evaluate("a.set({heads: ['0.3', '1.1', '2.0'], patches: [7]})")
    point_at_cell(page, 2, 3)
    page.evaluate("a.setSource(sources[1])")
    page.wait_for_function("a.data.L === 2 && a.data.loaded === 2")
    settle(page)
    assert state(page)["heads"] == ["1.1"], "the only one that is here, too"
    assert state(page)["patches"] == [3 * 10 + 5], "the same place on the picture"
    assert page.evaluate("Object.keys(a.hover).length") == 0


def test_every_picture_asks_for_its_own_maps(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    later = replace(found, attn=found.attn.flip(0))
    page = visit(blank_page(tmp_path / "two.html", (found, model), (later, model)))
    page.evaluate("window.b = start('b', sources[0], {methods: [{name: 'm', label: 'M', about: ''}]})")
    page.wait_for_function("b.data?.loaded === 3")
    page.evaluate("b.set({mode: 'method'})")
    asked = "heard.filter(([name]) => name === 'need_maps').length"
    page.wait_for_function(f"{asked} === 1")
    page.evaluate("b.setSource(sources[1])")
    page.wait_for_function(f"{asked} === 2")


@pytest.mark.parametrize(
    "garbage",
    [
        "layer=1.5&query=2.5&head=0.5",
        "opacity=7&patches=abc_1.5_999&heads=9.9_x",
        "colormap=constructor",
        "fuse=all&direction=up&scale=huge&basis=none&matrix=x&mode=none&embedding=none",
        "target=1e99&layer=-7",
        "patches=3&heads=0.1&frozen=0",  # nothing can be hidden in a file, nor brought back
    ],
)
def test_a_damaged_link_shows_the_nearest_thing_that_exists(visit: Open, garbage: str):
    page = visit(address=garbage)
    expect(page.locator(".vit-readout")).to_contain_text("gives")
    shown = state(page)
    assert shown["patches"] == shown["heads"] == [] and 0 <= shown["opacity"] <= 1
    assert shown["layer"] in (0, 1, 2) and shown["colormap"] in COLORMAPS and shown["fuse"] in ("one", "mean")


def test_the_first_component_is_red_the_second_green_the_third_blue(visit: Open, model: ViT, found: Trace):
    page = visit(address="mode=embeddings&embedding=pca&fade=0&opacity=1")
    page.wait_for_function("__vit.data.pca_joint")
    settle(page)
    arrays, _ = unpack(payload.embeddings_payload(found, model))
    assert np.abs(stage(page).astype(int) - arrays["pca_joint"][L]).max() <= 3


MATRIX = """(T) => {
  const canvas = document.querySelector(".vit-matrix"), found = [];
  const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let r = 0; r < T; r++) for (let c = 0; c < T; c++) {
    const at = ((r + 0.5) * canvas.height / T | 0) * width + ((c + 0.5) * canvas.width / T | 0);
    found.push([...data.slice(4 * at, 4 * at + 3)]);
  }
  return found;
}"""


def test_rows_of_the_token_matrix_are_queries(visit: Open, found: Trace):
    page = visit(address="layer=1&head=2&fuse=one&query=0")
    page.get_by_role("button", name="More").click()
    settle(page)
    seen, attn = np.array(page.evaluate(MATRIX, T)).reshape(T, T, 3), found.attn[1, 2]
    level = (255 * (attn / attn.max()).sqrt()).numpy()
    around = np.stack([COLORMAPS["viridis"][(level + d).clip(0, 255).astype(int)] for d in (-3, 3)])
    low, high = around.min(axis=0).astype(int) - 3, around.max(axis=0).astype(int) + 3
    assert ((seen >= low) & (seen <= high))[1:].all(), "the first row is the query's, which is marked"
    top = page.locator(".vit-legend span").nth(1).text_content()
    largest = 100 * float(patch_map(found, 1, 2, 0).max())
    assert float(re.findall(r"[\d.]+", top)[0]) == pytest.approx(largest, abs=0.6), "in whole percents"


def test_a_view_that_does_not_exist_is_a_mistake(model: ViT, found: Trace):
    with pytest.raises(ValueError, match=r"knows no layr: give mode, layer, head, fuse, .*, heads, frozen\."):
        show(found, CARD, model, layr=3)
    for wrong in (dict(layer=99), dict(head="x"), dict(query=-999), dict(layer=1.5)):
        with pytest.raises(ValueError, match=r"There is no (layer|head|query)"):
            show(found, CARD, model, **wrong)
    last = len(found.tokens) - 2
    assert f'"layer": {last}' in show(found, CARD, model, layer=-1).page
    with pytest.raises(ValueError, match=r"let its name end in \.html"):
        show(found, CARD, model).save("figure.png")


def test_the_embedding_in_a_link_is_the_embedding(visit: Open):
    page = visit(address="mode=embeddings&embedding=norms&layer=-1")
    assert state(page)["layer"] == -1
    page.locator(".vit-picture").first.press("ArrowDown")
    page.locator(".vit-picture").first.press("ArrowUp")
    page.wait_for_function("location.hash.includes('layer=-1')")


def test_another_link_in_the_same_tab_is_followed(visit: Open):
    page = visit(address="layer=0&fuse=one&head=3")
    page.evaluate("location.hash = 'layer=1&fuse=max'")
    page.wait_for_function("__vit.state.layer === 1 && __vit.state.fuse === 'max' && __vit.state.head === 0")


def test_another_link_in_the_same_tab_is_told_upwards(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    page = visit(blank_page(tmp_path / "link.html", (found, model)))
    page.evaluate("start('b', sources[0], {intervene: true, address: true})")
    page.wait_for_function("__vit.data")
    page.evaluate("location.hash = 'patches=3&target=2&query=5'")
    page.wait_for_function("['edits', 'target', 'pick'].every((name) => heard.some(([n]) => n === name))")
    said = page.evaluate("Object.fromEntries(heard)")
    assert said["edits"] == {"patches": [3], "heads": [], "frozen": -1, "frame": 0}
    assert said["target"] == {"target": 2}
    assert said["pick"]["query"] == 5
    page.evaluate("location.hash = 'query=5'")
    page.wait_for_function("heard.some(([name, p]) => name === 'edits' && !p.patches.length)")


def test_a_map_that_does_not_come_says_why(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    page = visit(blank_page(tmp_path / "refused.html", (found, model)))
    page.evaluate("""() => {
      document.getElementById("a").remove();
      start("b", sources[0], {methods: [{name: "flow", label: "Flow", about: ""}], state: {mode: "method"}});
    }""")
    expect(page.locator(".vit-readout")).to_contain_text("this map is being computed …")
    page.evaluate("__vit.refuse({flow: 'Flow is for small grids: take another.'})")
    expect(page.locator(".vit-readout")).to_have_text(re.compile(r"Flow is for small grids: take another\.$"))


def test_the_largest_of_all_heads_is_no_share(visit: Open):
    page = visit(address="fuse=mean")
    expect(page.locator(".vit-gauge")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator(".vit-gauge")).to_be_hidden()


def test_norms_have_a_scale_each_after_a_scale_that_they_do_not_know(visit: Open):
    page = visit(address="mode=embeddings&embedding=norms&scale=uniform")
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("radio", name="This map", exact=True)).to_be_checked()
    assert len(np.unique(small_map(page, 0, 0).reshape(-1, 3), axis=0)) > 3, (
        "measured against its own largest"
    )


def test_only_the_main_button_paints(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    page = visit(blank_page(tmp_path / "edit.html", (found, model)))
    page.get_by_role("button", name="Intervene").click()
    point_at(page, 3)
    page.mouse.down(button="right")
    page.mouse.up(button="right")
    assert state(page)["patches"] == []
    page.mouse.down()
    page.mouse.up()
    assert state(page)["patches"] == [3]


def test_what_a_person_does_is_told_upwards(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    page = visit(blank_page(tmp_path / "events.html", (found, model)))
    click_patch(page, 4)
    page.wait_for_function("heard.some(([name]) => name === 'pick')")
    assert page.evaluate("heard.find(([name]) => name === 'pick')[1].query") == PRE + 4
    page.locator(".vit-class").nth(1).click()
    second = int(found.logits.argsort(descending=True)[1])
    assert page.evaluate("heard.find(([name]) => name === 'target')[1].target") == second


def test_intervening_hides_patches_and_heads_and_shows_before_and_after(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    after = sharp(trace(model, found.image, edits=[ZeroHeads(((0, 1),))]))
    after = replace(after, attn=after.attn.flip(-1))
    page = visit(blank_page(tmp_path / "edit.html", (found, model), (after, model)))
    picture = page.locator(".vit-picture").first
    page.get_by_role("button", name="Intervene").click()
    place = picture.bounding_box()
    click_patch(page, 3)
    point_at_cell(page, 0, 1)
    page.keyboard.down("Alt")
    page.mouse.down()
    page.mouse.up()
    page.keyboard.up("Alt")
    page.wait_for_function("heard.some(([name, p]) => name === 'edits' && p.heads.length)")
    assert page.evaluate("heard.filter(([name]) => name === 'edits').at(-1)[1]") == {
        "patches": [3],
        "heads": [[0, 1]],
        "frozen": -1,
        "frame": 0,
    }
    button = page.get_by_role("button", name="Hide what it looks at")
    button.focus()
    page.evaluate("a.setAfter(sources[1])")
    label = page.locator(".vit-pane:visible .vit-pane-label")
    expect(label).to_have_text(["Looks at, after the intervention"])
    page.wait_for_function("a.after && a.after.loaded === 3")
    settle(page)
    truth = patch_map(after, 2, 0, 0)
    assert_shows(small_map(page, 2, 0), truth, truth.max().item())
    assert picture.bounding_box() == place, "what is painted stays where it is"
    expect(page.locator(".vit-class .vit-share").first).to_contain_text("→")
    expect(button).to_be_focused()  # whoever works it by keyboard goes on from there
    winner = CARD.class_names[int(after.logits.argmax())]
    expect(page.locator(".vit-class .vit-name").first).to_have_text(winner)
    expect(page.locator(".vit-lead")).to_contain_text(
        "Without 1 of its 15 squares and with L0.H1 switched off"
    )
    expect(page.locator(".vit-lead strong")).to_contain_text(winner)
    page.keyboard.press("b")
    settle(page)
    expect(label).to_have_text(["Looks at, before the intervention"])
    truth = patch_map(found, 2, 0, 0)
    assert_shows(small_map(page, 2, 0), truth, truth.max().item())
    page.get_by_role("button", name="Undo all").press("Enter")
    expect(page.get_by_role("button", name="Intervene")).to_be_focused()
    page.wait_for_function(
        "heard.at(-1)[0] === 'edits' && !heard.at(-1)[1].heads.length && !heard.at(-1)[1].patches.length"
    )


HOST = """async () => {
  document.getElementById("a").remove();
  const url = async (message) => URL.createObjectURL(new Blob([await message]));
  const layers = (source) => Promise.all([0, 1, 2].map((l) => url(source.layer(l))));
  const of = async (source) => ({head: await url(source.head()), layers: await layers(source)});
  const [before, after] = await Promise.all(sources.map(of));
  const host = ViTViewer.host(document.getElementById("b"), {intervene: true});
  window.say = (after) => host.receive({...before, nonce: Math.random(), ...(after && {after})});
  const edits = (patches) => ({patches, heads: [], frozen: -1});
  window.one = (...patches) => ({...after, head: after.head + "#" + patches, edits: edits(patches)});
  await say();
}"""


def test_an_answer_is_said_of_the_interventions_that_it_is_of(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    after = trace(model, found.image, edits=[ZeroHeads(((0, 1),))])
    page = visit(blank_page(tmp_path / "host.html", (found, model), (after, model)))
    page.evaluate(HOST)
    page.wait_for_function(READY)
    lead = page.locator("#b .vit-lead")
    page.evaluate("__vit.set({patches: [3]}); say(one(3))")
    expect(lead).to_contain_text(re.compile(r"Without 1 of its 15 squares, it (still|now) says"))
    page.evaluate("__vit.set({patches: [3, 4]})")
    expect(lead).to_contain_text("looking again")
    page.evaluate("__vit.set({patches: [3]})")
    expect(lead).to_contain_text("says", timeout=2000)  # undone before it was told: that answer is there
    page.evaluate("__vit.set({patches: [3, 4]}); say(one(3))")  # any other news
    expect(lead).to_contain_text("looking again")
    page.evaluate("say({...one(3, 4), head: 'data:,broken'})")
    expect(lead).to_contain_text("Without 2 of its 15 squares, it gives no answer.")
    expect(page.locator("#b .vit-working")).not_to_be_empty()
    page.evaluate("say(one(3, 4))")
    expect(lead).to_contain_text(re.compile(r"Without 2 of its 15 squares, it (still|now) says"))
    page.evaluate("__vit.set({patches: [1, 2, 3]}); __vit.unanswered()")
    expect(lead).to_contain_text("it gives no answer")
    page.evaluate("__vit.set({patches: []}); say()")
    expect(lead).to_contain_text("The model cut this picture")
    assert page.evaluate("__vit.after") is None


def test_charts_point_at_heads(visit: Open):
    page = visit()
    page.get_by_role("button", name="More").click()
    dot = page.locator(".vit-chart").first.locator("circle").nth(6)  # layer 1, head 2
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".vit-readout b")).to_have_text("L1.H2")
    page.mouse.move(5, 5)
    expect(page.locator(".vit-readout b")).to_have_text("L2, mean of 4 heads")


def test_a_copied_link_is_answered_in_words_on_a_phone_too(visit: Open):
    page = visit(width=390, height=844, served=True)
    words, button = (
        page.locator(".vit-tools .vit-button .vit-text").last,
        page.get_by_role("button", name="Copy link"),
    )
    width = "(words) => words.getBoundingClientRect().width"
    assert words.evaluate(width) <= 1, "there to be heard, not to be seen"
    page.clock.install()  # it is said for a moment only
    button.click()
    expect(words).to_have_text(re.compile("Copied|It is in the address bar"))
    assert words.evaluate(width) > 20


def test_a_copied_link_says_that_a_picture_of_ones_own_stays_behind(
    visit: Open, model: ViT, found: Trace, tmp_path: Path
):
    file = blank_page(tmp_path / "a.html", (found, model))
    page = visit(file, served=True)
    words = page.locator("#b .vit-tools .vit-button .vit-text").last
    for told in (True, False):  # which it is, the page knows: explorer/views/page.js
        page.goto(SERVED)
        page.evaluate(
            """async (told) => {
              window.vitPage = {own: () => told};
              const url = async (message) => URL.createObjectURL(new Blob([await message]));
              const layers = [0, 1, 2].map((l) => url(sources[0].layer(l)));
              const value = {head: await url(sources[0].head()), layers: await Promise.all(layers)};
              ViTViewer.host(document.getElementById("b"), {address: true}).receive(value);
            }""",
            told,
        )
        page.wait_for_function(READY)
        page.locator("#b").get_by_title("Copy a link to this view").click()
        ending = "(Copied|address bar)" + ", without your picture" * told
        expect(words).to_have_text(re.compile(ending + "$"))


def test_a_smoothed_map_says_so(visit: Open):
    page = visit(address="smooth=1")
    label = page.locator(".vit-pane .vit-pane-label").first
    expect(label).to_have_text("Looks at, smoothed")
    choose(page, "Embeddings")
    expect(label).to_have_text("After L2, smoothed")
    choose(page, "Patch filters")
    expect(label).to_have_text("Patch filters")
    choose(page, "Attention")
    page.get_by_role("button", name="More").click()
    page.get_by_label("Smooth").uncheck()
    expect(label).to_have_text("Looks at")


@pytest.mark.parametrize(
    "width, height, touch", [(1440, 900, False), (1024, 768, False), (390, 844, True), (320, 640, True)]
)
@pytest.mark.parametrize("mode", ["attention", "embeddings", "rollout"])
def test_nothing_overflows_or_jumps(visit: Open, width: int, height: int, touch: bool, mode: str):
    page = visit(address=f"mode={mode}", width=width, height=height, has_touch=touch, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = page.evaluate(
        """[...document.querySelectorAll(".vit-viewer :is(canvas, button, select, svg)")]
        .filter((e) => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 0.5).length"""
    )
    assert inside == 0
    places = """[...document.querySelectorAll(".vit-viewer canvas, .vit-transport")]
        .map((e) => Math.round(e.getBoundingClientRect().top))"""
    before = page.evaluate(places)
    for patch in (0, 7, 14):
        point_at(page, patch)
        assert page.evaluate(places) == before


def test_a_screen_with_smaller_pixels_is_drawn_for(visit: Open, model: ViT, found: Trace, tmp_path: Path):
    page = visit(blank_page(tmp_path / "screen.html", (found, model)))
    page.evaluate("""() => {
      const { matchMedia } = window, screens = window.screens = [];
      window.matchMedia = (query) => {
        const found = matchMedia(query);
        if (query.includes("resolution")) screens.push(found);
        return found;
      };
      start("b", sources[0]);
    }""")
    page.wait_for_function(READY)
    wide = "document.querySelector('#b .vit-picture').width"
    before = page.evaluate(wide)
    metrics = {"width": 1440, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", metrics)
    page.wait_for_function("devicePixelRatio === 2")
    page.evaluate("screens[0].dispatchEvent(new Event('change'))")  # which this emulation leaves out
    page.wait_for_function(f"(before) => {wide} > 1.5 * before", arg=before)
    assert page.evaluate("screens.at(-1).matches"), "and the next one is waited for"


def test_a_finger_pins(visit: Open):
    page = visit(width=390, height=844, has_touch=True, is_mobile=True)
    box = page.locator(".vit-picture").first.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    settle(page)
    assert state(page)["pinned"] and state(page)["query"] == PRE + 7


CONTRAST = """() => {
  const parse = (color) => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(") ? numbers.map((v, i) => i < 3 ? v * 255 : v) : numbers;
  };
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll(".vit-viewer *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || e.closest("[disabled]")) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.className, e.textContent.slice(0, 30), ratio]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(visit: Open, scheme: str):
    page = visit(color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


def test_a_notebook_gets_the_same_page_in_a_frame(browser: Browser, model: ViT, found: Trace, tmp_path: Path):
    cell = show(found, CARD, model, layer=1, fuse="one", head=3)._repr_html_()
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'>{cell}", encoding="utf-8")
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    frame = page.frame_locator("iframe")
    expect(frame.locator(".vit-readout b")).to_have_text("L1.H3")
    frame.locator(".vit-transport select").select_option("mean")
    expect(frame.locator(".vit-readout b")).to_have_text("L1, mean of 4 heads")
    expect(frame.get_by_title("Copy a link to this view")).to_be_hidden()  # it has no address to write to
    assert complaints == []
    page.close()


def test_the_page_is_one_file_with_nothing_to_fetch(page_file: Path):
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert io.StringIO(text).readline() == "<!doctype html>\n"
    hostile = viewer_html(
        b"", [], title="</title><script>alert(1)</script>", state={"method": "</script><b>"}
    )
    assert "<script>alert" not in hostile and "</script><b>" not in hostile


def test_a_large_model_loads_layers_when_they_are_looked_at(
    visit: Open, browser: Browser, model: ViT, found: Trace, tmp_path: Path
):
    head, embeddings, *layers = payloads(found, CARD, model)
    arrays, meta = unpack(head)
    file = tmp_path / "large.html"
    file.write_text(
        viewer_html(pack(arrays, meta | {"layer_bytes": 2**30}), layers, embeddings), encoding="utf-8"
    )
    page = browser.new_page()
    page.add_init_script("window.vitDebug = true")
    page.goto(file.as_uri() + "#layer=0&fuse=one")
    page.wait_for_function("window.__vit?.data?.loaded === 2 && !document.querySelector('.is-loading')")
    assert page.evaluate("__vit.data.layers.map(Boolean)") == [True, True, False]  # the neighbour, not all
    point_at_cell(page, 2, 1)
    page.wait_for_function("__vit.data.loaded === 3")
    settle(page)
    truth = patch_map(found, 2, 1, 0)
    assert_shows(small_map(page, 2, 1), truth, truth.max().item())
    page.close()


def test_rows_that_were_not_sent_are_shown_by_their_neighbour(
    visit: Open, model: ViT, found: Trace, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(payload, "ROW_BUDGET", H * T * 10)
    sent, row_of = payload.sent_rows(found.grid, PRE, H)
    assert len(sent) < T
    page = visit(show(found, CARD, model).save(tmp_path / "sampled.html"))
    for patch in (0, 14):
        point_at(page, patch)
        drawn = int(sent[row_of[PRE + patch]])
        row, column = divmod(drawn - PRE, GRID[1])
        name = f"patch ({row},\u00a0{column})" + (
            "" if drawn == PRE + patch else ", the nearest that was sent,"
        )
        expect(page.locator(".vit-readout")).to_contain_text(f"{name} gives")  # not what it does not know
        truth = patch_map(found, 1, 2, drawn)
        assert_shows(small_map(page, 1, 2), truth, truth.max().item())
