"""The exported folder in real browsers: the model's answers are Python's, and no other host is asked."""

import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import site_pages
import torch
from firefox import Firefox
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from site_pages import READY, answers, with_camera

from explorer.ledger import ledger
from explorer.lesson.answer import shared as last_steps
from explorer.lesson.follow import Choice, Follow
from explorer.lesson.steps import lesson_of
from explorer.roles import read_roles
from explorer.site.folder import Shared, write_site
from explorer.site.onefile import write_one_file
from explorer.site.pictures import Picture
from vit import load, trace
from vit.checkpoint import list_snapshots, load_snapshot
from vit.library import folder_of
from vit.pictures import preprocess
from vit.shapes import shapes_sample
from vit.trace import MaskPatches, ZeroHeads

pytestmark = pytest.mark.browser
url, visit = site_pages.url, site_pages.visit
NAMES = [f"shape-{i}" for i in range(20)]


def shape(i: int) -> Image.Image:
    return shapes_sample(11, i)[0].resize((100 + 7 * i, 160 - 3 * i), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def shared() -> Shared:
    model, card = load("shapes")
    kept = list_snapshots(folder_of("shapes"))
    moments = [(s.step, s.path) for s in (kept[0], kept[-1])]
    return Shared("shapes", model, card, moments, read_roles(folder_of("shapes"), model), "relevance")


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [Picture(name, name, shape(i)) for i, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def site(shared: Shared, pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, [shared], pictures, title="A <b>class</b> of ours")
    return folder


def expected(shared: Shared, picture: Image.Image, **options) -> torch.Tensor:
    image = preprocess(picture, shared.card, shared.card.size_for(shared.model.config))
    return shared.card.probabilities(trace(shared.model, image, **options).logits)


def bring(page: Page, picture: Image.Image) -> None:
    """Choose a picture of one's own, as with the file button."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    page.set_input_files("#file", {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()})


def test_probabilities_are_pythons_on_twenty_pictures(visit, shared: Shared, pictures: list[Picture]) -> None:
    page = visit()
    for each in pictures:
        page.locator(f'[data-picture="{each.name}"]').click()
        page.wait_for_function(f"() => vitSite.settled && vitSite.now.picture.name === {each.name!r}")
        theirs = expected(shared, each.picture)
        for index, value in answers(page):
            assert abs(value - float(theirs[index])) < 1e-3, each.name


def test_attention_is_pythons(visit, shared: Shared, pictures: list[Picture]) -> None:
    page = visit("?picture=shape-3")
    page.wait_for_function("() => vitSite.viewer.data.layers.every(Boolean)")
    found = page.evaluate("vitSite.viewer.data.layers.map((l) => [[...l.attn], [...l.attn_max]])")
    image = preprocess(pictures[3].picture, shared.card, shared.card.size_for(shared.model.config))
    theirs = trace(shared.model, image).attn.numpy()
    H, T = theirs.shape[1:3]
    for layer, (steps, maxima) in enumerate(found):
        steps, maxima = np.array(steps).reshape(H, T, T), np.array(maxima).reshape(H, T, 2)
        scale = np.concatenate(
            [maxima[..., :1], np.repeat(maxima[..., 1:], T - 1, -1)], -1
        )  # one prefix token
        ours = scale * (steps / 255.0) ** 2
        bound = scale * (np.sqrt(theirs[layer] / np.maximum(scale, 1e-9)) / 255 + 1 / 510**2)
        assert (np.abs(ours - theirs[layer]) <= bound + 1e-3 + 0.01 * scale).all()


def test_the_first_screen_is_that_of_the_app(visit, shared: Shared, pictures: list[Picture]) -> None:
    page = visit("?picture=shape-3")
    assert shared.roles is not None
    found = page.evaluate(
        "(({head_names, opening, believed}) => [head_names, opening, believed])(vitSite.viewer.data)"
    )
    assert found == [shared.roles.all_names(), shared.roles.opening, "relevance"]
    assert page.evaluate("vitSite.viewer.state.layer") == shared.roles.opening["layer"]
    expect(page.get_by_role("button", name="Hide what it looks at")).to_be_visible()
    expect(page.get_by_role("button", name="Intervene")).to_be_visible()
    page.wait_for_function("() => vitSite.viewer.data.exact?.size")
    expect(page.locator(".vit-readout")).not_to_contain_text("≈")  # the numbers that are read are exact
    exact = np.array(page.evaluate("[...vitSite.viewer.data.exact.values()][0]"))
    image = preprocess(pictures[3].picture, shared.card, shared.card.size_for(shared.model.config))
    theirs = trace(shared.model, image).attn[shared.roles.opening["layer"]].numpy()
    np.testing.assert_allclose(exact, theirs.ravel(), atol=5e-3)
    page.get_by_role("button", name="What was it like when training began?").click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.moment === 0")
    assert page.evaluate("vitSite.viewer.data.head_names") is None, "that was measured of other weights"


def near(ours, theirs, where: str = "") -> None:
    """The same numbers as far as weights in half precision can give them; words of numbers may differ."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs.keys() - {
            "best",
            "right",
            "written",
            "filters",
            "tokens",
            "keys",
            "orders",
            "hidden",
        }:
            near(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], int | float):
        scale = max(1e-3, *map(abs, theirs))
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 3e-2 * scale, where
    elif isinstance(theirs, list):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            near(a, b, f"{where}[{i}]")
    elif isinstance(theirs, str):
        assert ours == theirs, where


def test_the_lesson_of_an_own_picture_is_made_in_the_page(visit, shared: Shared) -> None:
    page = visit("?tab=lesson")
    bring(page, shape(35))
    page.wait_for_function(
        "() => vitSite.settled && vitSite.now.picture.own"
        " && vitSite.followed.prepared === vitSite.prepared && vitSite.followed.missing === false"
    )
    page.evaluate("vitSite.followed.lesson.choose({ patch: 20, layer: 2, head: 1 })")
    page.wait_for_function("() => vitSite.followed.lesson.lesson.choice.patch === 20")
    expect(page.locator("#lesson .les-chapter")).to_have_text("Squares become numbers · 1 of 15")
    ours = page.evaluate("vitSite.followed.lesson.lesson")
    image = preprocess(shape(35), shared.card, shared.card.size_for(shared.model.config))
    t, choice = trace(shared.model, image), Choice(20, 2, 1)
    once = last_steps(Follow(t, shared.model, shared.card, choice))
    theirs = json.loads(json.dumps(lesson_of(t, shared.model, shared.card, choice, once)))
    for a, b in zip(ours["steps"], theirs["steps"], strict=True):
        for name in ("name", "title", "code", "note"):
            assert a[name] == b[name]
        near(a["data"], b["data"], b["name"])
    for step in range(15):  # every step draws
        page.evaluate(f"vitSite.followed.lesson.go({step})")
        expect(page.locator("#lesson .les-drawing, #lesson .les-quiz").first).to_be_visible()
    refused = """() => {
        const pen = new OffscreenCanvas(1, 1).getContext("2d"), { ink, bar } = vitSite.followed.lesson;
        return [ink, bar].filter((colour) => {
          pen.fillStyle = "#123456"; pen.fillStyle = colour; return pen.fillStyle === "#123456"; }); }"""
    assert page.evaluate(refused) == []  # what is chosen is marked in its canvases
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#viewer .vit-picture").first).to_be_visible()


def test_hidden_patches_and_heads_switched_off_change_the_answer_as_in_python(
    visit, shared, pictures
) -> None:
    page = visit("?picture=shape-5")
    page.evaluate("vitSite.heard('edits', { patches: [27, 28, 35, 36], heads: [[2, 1]] })")
    page.wait_for_function("() => vitSite.viewer.after")
    ours = page.evaluate("vitSite.viewer.after.classes.map((c) => [c.index, c.value])")
    edits = (MaskPatches((27, 28, 35, 36), 1), ZeroHeads(((2, 1),)))
    theirs = expected(shared, pictures[5].picture, edits=edits)
    assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in ours)
    page.evaluate("vitSite.heard('edits', { patches: [], heads: [] })")
    page.wait_for_function("() => !vitSite.viewer.after")


def test_the_ledgers_map_of_an_own_picture_is_made_in_the_page(visit, shared: Shared) -> None:
    page = visit()
    bring(page, shape(33))
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.own")
    page.evaluate("vitSite.heard('need_maps', { method: 'logit_ledger', target: 3 })")
    page.wait_for_function("() => vitSite.viewer.data.maps.size")
    ours = np.array(page.evaluate("[...[...vitSite.viewer.data.maps.values()][0]]"))
    image = preprocess(shape(33), shared.card, shared.card.size_for(shared.model.config))
    theirs = ledger(trace(shared.model, image), shared.model, 3).map().flatten().numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())


def test_an_own_picture_is_looked_at_and_stays_here(visit, shared: Shared) -> None:
    page = visit()
    bring(page, shape(31))
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.own")
    theirs = expected(shared, shape(31))
    assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in answers(page))
    expect(page).not_to_have_url(re.compile("picture="))
    expect(page.locator("footer")).to_contain_text("stay on your machine")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#said")).to_contain_text("not a picture")
    assert page.evaluate("vitSite.now.picture.label") == "mine.png", "what was there stays"


def test_a_moment_of_training_shows_its_own_weights(visit, shared: Shared, pictures: list[Picture]) -> None:
    page = visit("?picture=shape-2")
    page.locator("#moment").fill("0")
    page.wait_for_function("() => vitSite.settled && vitSite.now.moment === 0")
    expect(page.locator("#moment-name")).to_have_text("step 0")
    moment, card = load_snapshot(shared.snapshots[0][1])
    theirs = expected(Shared("x", moment, card), pictures[2].picture)
    assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in answers(page))
    expect(page).to_have_url(re.compile("step=0"))
    page.reload()
    page.wait_for_function(READY)
    assert page.evaluate("[vitSite.now.moment, vitSite.now.picture.name]") == [0, "shape-2"]
    page.go_back()
    page.wait_for_function("() => vitSite.settled && vitSite.now.moment === -1")
    page.locator("#moment").fill("0")
    page.wait_for_function("() => vitSite.settled && vitSite.now.moment === 0")
    page.locator("#moment").press("End")
    expect(page.locator("#moment-name")).to_have_text("as trained")
    page.wait_for_function(READY)
    assert page.locator("#said").text_content() == ""


def test_the_address_says_at_which_moment_the_training_was_stopped(visit) -> None:
    page = visit()
    page.evaluate("for (let i = 0; i < 2; i++) document.getElementById('play').click()")  # on its way
    expect(page).to_have_url(re.compile("step=0"))
    page.reload()
    page.wait_for_function(READY)
    expect(page.locator("#moment-name")).to_have_text("step 0")


def test_the_way_back_leads_to_what_was_seen(visit) -> None:
    page = visit("?picture=shape-3#mode=rollout&layer=1&patches=5")
    page.locator('[data-picture="shape-4"]').click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'shape-4'")
    assert page.evaluate("vitSite.viewer.state.patches") == []
    page.evaluate("vitSite.viewer.set({ mode: 'attention', layer: 3, heads: ['2.1'] })")
    page.wait_for_function("() => location.hash.includes('heads=2.1')")
    seen = "(({ mode, layer, patches, heads }) => [mode, layer, patches, heads])(vitSite.viewer.state)"
    page.go_back()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'shape-3'")
    assert page.evaluate(seen) == ["rollout", 1, [5], []]
    page.wait_for_function("() => vitSite.viewer.after")
    assert page.evaluate("location.hash") == "#mode=rollout&layer=1&patches=5"
    page.go_forward()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'shape-4'")
    assert page.evaluate(seen) == ["attention", 3, [], ["2.1"]]


def test_it_opens_without_a_network_once_it_was_open(visit, url: str) -> None:
    page = visit()
    page.wait_for_function("() => navigator.serviceWorker.controller || navigator.serviceWorker.ready")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.reload()
    page.wait_for_function(READY)
    page.context.set_offline(True)
    page.reload()
    page.wait_for_function(READY)
    assert answers(page)


def test_the_camera_is_watched_until_it_is_frozen(playwright_with_camera: Browser, url: str) -> None:
    page = playwright_with_camera.new_page()
    page.set_default_timeout(90_000)
    page.goto(url)
    page.wait_for_function(READY)
    page.locator("#camera").click()
    expect(page.locator("#rate")).to_contain_text("pictures a second")
    page.wait_for_function("() => vitSite.own.frames >= 3")
    come = "vitSite.viewer.data.layers.filter(Boolean).length"
    assert page.evaluate(f"vitSite.viewer.data.L > 1 && {come} <= 1")  # what is on the screen, no more
    page.locator("canvas.vit-picture").first.hover()  # over a patch: every head answers
    page.wait_for_function(f"() => {come} === vitSite.viewer.data.L")
    page.mouse.move(0, 0)
    page.evaluate("vitSite.viewer.set({ mode: 'rollout' })")
    page.wait_for_function("() => vitSite.viewer.data.layers.every((l) => l?.rollout)")
    page.evaluate("vitSite.viewer.set({ mode: 'attention' })")
    page.locator("#camera").click()
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("vitSite.now.picture.label") == "camera"
    page.wait_for_function("() => vitSite.settled && vitSite.viewer.data.layers.every(Boolean)")


def test_rollout_similarity_and_figures_are_made_where_they_are_seen(visit) -> None:
    page = visit()
    has = "(name) => vitSite.viewer.data.layers.filter((l) => l?.[name]).length"
    page.wait_for_function("() => vitSite.viewer.data.layers.every(Boolean)")
    assert page.evaluate(has, "rollout") == page.evaluate(has, "similarity") == 0
    assert page.evaluate("!vitSite.viewer.data.distance")
    page.evaluate("vitSite.viewer.set({ mode: 'rollout' })")
    page.wait_for_function(f"() => ({has})('rollout') === vitSite.viewer.data.L")
    page.locator('[data-picture="shape-3"]').click()  # and so of the next picture
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'shape-3'")
    page.wait_for_function(f"() => ({has})('rollout') === vitSite.viewer.data.L")
    page.evaluate("vitSite.viewer.set({ mode: 'embeddings', embedding: 'similarity' })")
    page.locator('[data-picture="shape-4"]').click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'shape-4'")
    page.wait_for_function(f"() => ({has})('similarity') === vitSite.viewer.data.L")
    page.evaluate("vitSite.viewer.set({ mode: 'attention' })")
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.locator(".vit-charts .vit-chart")).to_have_count(3)


def test_what_is_chosen_while_the_camera_runs_is_shown(playwright_with_camera: Browser, url: str) -> None:
    page = playwright_with_camera.new_page()
    page.set_default_timeout(90_000)
    page.goto(url)
    page.wait_for_function(READY)
    camera, said = page.locator("#camera"), page.locator("#said")
    camera.click()
    page.wait_for_function("() => vitSite.own.frames >= 3")
    page.locator("#moment").fill("0")
    page.wait_for_function("(seen) => vitSite.own.frames > seen + 3", arg=page.evaluate("vitSite.own.frames"))
    assert page.evaluate("vitSite.now.moment") == 0 and page.evaluate("vitSite.now.picture.label") == "camera"
    expect(page.locator("#moment-name")).to_contain_text("step")
    page.locator("#examples button").last.click()
    page.wait_for_function(READY)
    expect(camera).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("vitSite.now.picture.name") == NAMES[-1]
    camera.click()
    page.wait_for_function("(seen) => vitSite.own.frames > seen", arg=page.evaluate("vitSite.own.frames"))
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(said).to_contain_text("not a picture")
    expect(camera).to_have_attribute("aria-pressed", "false")


@pytest.fixture
def playwright_with_camera(browser: Browser) -> Iterator[Browser]:
    with with_camera(browser) as other:
        yield other


def test_no_camera_is_one_sentence(visit) -> None:
    page = visit()
    page.locator("#camera").click()
    expect(page.locator("#said")).to_have_text(
        re.compile(r"^(No camera was found|The camera may not be used).+\.$")
    )
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize(
    "missing", ["models/shapes/weights.bin.gz", "site.json", "models/shapes/graph.onnx.gz"]
)
def test_a_missing_file_is_one_sentence(missing: str, browser: Browser, url: str) -> None:
    page = browser.new_context(service_workers="block").new_page()
    page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
    page.goto(url)
    expect(page.locator("#said")).to_have_text(
        f"A file of this page is missing ({missing}): copy the folder again."
    )


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            "self.WebAssembly = undefined;",
            r"lacks WebAssembly, in which the model runs: try a current",
        ),
        (
            "WebAssembly.Memory = class { constructor() { throw new RangeError('could not allocate'); } };",
            r"^This device has too little memory for this model: choose a smaller one\.$",
        ),
    ],
)
def test_what_a_browser_lacks_is_one_sentence(
    before: str, said: str, browser: Browser, url: str, site: Path
) -> None:
    page = browser.new_context(service_workers="block").new_page()
    script = before + (site / "worker.js").read_text()
    headers = {"content-type": "text/javascript", "cross-origin-embedder-policy": "require-corp"}
    page.route("**/worker.js", lambda route: route.fulfill(body=script, headers=headers))
    page.goto(url)
    expect(page.locator("#said")).to_have_text(re.compile(said), timeout=60_000)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("weights.bin.gz", b"\x1f\x8bx", "A file of this page is damaged (models/shapes/weights.bin.gz)"),
        ("weights.bin.gz", b"no gzip", "The files of this model do not fit together"),
        ("graph.onnx.gz", gzip.compress(b"no graph", mtime=0), "The files of this model do not fit together"),
    ],
)
def test_a_damaged_file_is_one_sentence(
    file: str, content: bytes, said: str, browser: Browser, url: str
) -> None:
    page = browser.new_context(service_workers="block").new_page()
    page.route(f"**/{file}", lambda route: route.fulfill(body=content))
    page.goto(url)
    expect(page.locator("#said")).to_have_text(f"{said}: copy the folder again.", timeout=60_000)


def test_maps_that_need_gradients_say_so_on_own_pictures(visit) -> None:
    page = visit()
    bring(page, shape(36))
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.own")
    page.evaluate("vitSite.viewer.set({ mode: 'method', method: 'relevance' })")
    page.wait_for_function("() => vitSite.viewer.data.refused.relevance")
    expect(page.locator(".vit-readout")).to_contain_text("needs gradients, which a model in a browser")


def test_in_firefox_too(url: str, shared: Shared, pictures: list[Picture]) -> None:
    with Firefox.start() as firefox:
        firefox.goto(url + "?picture=shape-4")
        firefox.wait_for("window.vitSite && vitSite.settled")
        found = firefox.evaluate("vitSite.viewer.data.classes.map((c) => [c.index, c.value])")
        theirs = expected(shared, pictures[4].picture)
        assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in found)
        assert all(request.startswith((url, "blob:", "data:")) for request in firefox.requests)
        assert not firefox.log


def test_one_file_opens_from_a_disk(
    browser: Browser, shared: Shared, pictures: list[Picture], tmp_path: Path
) -> None:
    file = tmp_path / "one.html"
    write_one_file(file, [Shared("shapes", shared.model, shared.card)], pictures[:2])
    page = browser.new_context(offline=True).new_page()
    page.set_default_timeout(90_000)
    page.goto(file.as_uri())
    page.wait_for_function(READY)
    theirs = expected(shared, pictures[0].picture)
    assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in answers(page))
    with Firefox.start() as firefox:
        firefox.goto(file.as_uri())
        firefox.wait_for("window.vitSite && vitSite.settled")
        found = firefox.evaluate("vitSite.viewer.data.classes.map((c) => [c.index, c.value])")
        assert all(abs(value - float(theirs[index])) < 1e-3 for index, value in found)
        assert [request for request in firefox.requests if request.startswith("http")] == []


def test_names_on_the_page_are_text(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "A &lt;b&gt;class&lt;/b&gt; of ours" in page
    assert json.loads((site / "page.webmanifest").read_text())["name"]
