"""The app's main job in a real browser: what a visitor sees, from the first second to the copied link."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect

from explorer.look import Look
from explorer.methods import METHODS
from explorer.session import Session
from vit import ViT, save
from vit.card import Card
from vit.checkpoint import save_snapshot

pytestmark = pytest.mark.browser

CARD = Card(name="tiny", class_names=("ant", "bee", "cat", "dog", "eel", "fox", "gnu"), accuracy=0.5)
PHONE = {"width": 390, "height": 844}
PATIENCE = 90_000  # milliseconds: this machine may be busy
# the viewer of the first tab has everything, and has painted
READY = """() => {
  const viewer = document.querySelector('#viewer .vit-viewer')?.viewer;
  return viewer?.data && viewer.data.loaded === viewer.data.L && viewer.perf.first !== null;
}"""
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# what a page does again and again, so that a test need not wait for it
TIMERS = """{
  const { setInterval } = window, timers = window.vitTimers = [];
  window.setInterval = (run, ...rest) => { timers.push([run, rest[0]]); return setInterval(run, ...rest); };
}"""
FOLLOW = "() => window.vitTimers.filter(([, wait]) => wait === 5000).forEach(([run]) => run())"
ASKED = re.compile("queue/join|run/predict")  # an event is on its way to the server
VIEWER = "document.querySelector('#viewer .vit-viewer').viewer"
STATE = "() => ({...document.querySelector('#viewer .vit-viewer').viewer.state})"
# the mean colour of the picture that the viewer holds: whose picture is it?
COLOUR = """() => {
  const image = document.querySelector('#viewer .vit-viewer').viewer.data.frames[0];
  const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three checkpoints: one to look at, one without a head, one whose training goes on."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("tiny", "run"):
        save(folder / name, randomised(ViT(tiny_config())), CARD)
    save(folder / "headless", randomised(ViT(tiny_config(num_classes=0, num_registers=1))), Card("headless"))
    rows = ["step,epoch,loss,accuracy"]
    for step in (1, 10, 100):
        save_snapshot(folder / "run", randomised(ViT(tiny_config())), CARD, step, {"accuracy": step / 200})
        rows.append(f"{step},{step / 50},{2 - step / 100},{step / 200}")
    (folder / "run" / "history.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def run(folder: Path) -> str:
    return str(folder / "run")


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session(extra=tuple(str(folder / name) for name in ("tiny", "headless", "run")))


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """visit(address="") -> a page that shows a picture; at the end nothing has complained or called out."""
    contexts, complaints = [], []

    def open_page(address: str = "", **options) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        context.add_init_script("window.vitDebug = true")
        context.add_init_script(TIMERS)
        page = context.new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if not own(request.url, url) else None
        )
        page.goto(url + address)
        page.wait_for_function(READY)
        page.wait_for_function("() => window.vitPage.stamp && window.vitPage.waiting.name")
        expect(page.locator("#picture img")).to_be_attached()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not text.startswith(LEAVING)] == []


# what Gradio's own script says when a page is left, by a reload, while its event stream is open
LEAVING = ("AbortError: signal is aborted", "Unexpected error Connection errored out")


def test_a_page_that_waits_says_who_is_served_first(browser: Browser, url: str, session: Session) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.add_init_script("window.vitDebug = true")
    pages = [context.new_page() for _ in range(2)]
    with session.model_lock:  # a look that takes long
        for page in pages:
            page.goto(url + "?size=twice%20as%20large")
            expect(page.locator("#main")).to_be_visible()
        expect(pages[1].locator(".vx-waiting")).to_have_text(re.compile("served before you"))
    for page in pages:
        page.wait_for_function(READY)
        expect(page.locator(".vx-waiting")).to_have_count(0)
    context.close()


def test_what_a_phone_takes_is_shrunk_before_it_is_sent(visit: Visit, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2600, 3900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "phone.jpg", quality=95)
    assert (tmp_path / "phone.jpg").stat().st_size > 10 * 2**20, "more than the server takes"
    page = visit()
    sent = []
    page.on("request", lambda request: sent.append(request) if "/upload" in request.url else None)
    page.set_input_files("#picture input[type=file]", str(tmp_path / "phone.jpg"))
    page.wait_for_function("() => new URL(location.href).searchParams.get('example') === 'own'")
    assert sent and all(len(request.post_data_buffer or b"") < 2 * 2**20 for request in sent)
    page.evaluate("""() => {
      vitPage.shrunk = (file) => new Promise((done) => { window.shrunk = () => done(file); });
    }""")
    page.set_input_files("#picture input[type=file]", str(tmp_path / "phone.jpg"))
    sent.clear()
    choose_example(page, "tower")  # while the picture is still being shrunk
    page.evaluate("window.shrunk()")
    page.evaluate(FRAMES)
    assert not sent


def own(address: str, url: str) -> bool:
    return address.startswith((url, url.replace("127.0.0.1", "localhost"), "data:", "blob:"))


def picture_of(color: tuple[int, int, int], folder: Path) -> str:
    path = folder / ("-".join(map(str, color)) + ".png")
    noise = np.random.default_rng(sum(color)).integers(-20, 20, (60, 100, 3))
    Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return str(path)


def upload(page: Page, path: str) -> None:
    before = page.evaluate(COLOUR)
    clear = page.locator("#picture").get_by_label("Remove Image")
    if clear.count():
        clear.first.click()
    page.set_input_files("#picture input[type=file]", path)
    page.wait_for_function(f"(before) => JSON.stringify(({COLOUR})()) !== JSON.stringify(before)", arg=before)
    page.wait_for_function(READY)


def choose_example(page: Page, name: str) -> None:
    before = page.evaluate(COLOUR)
    page.locator(f"[data-example={name}]").click()
    page.wait_for_function(f"(before) => JSON.stringify(({COLOUR})()) !== JSON.stringify(before)", arg=before)
    page.wait_for_function(f"() => location.search.includes('example={name}')")
    page.wait_for_function(READY)


def shows(page: Page, expected: str) -> None:
    """Wait until this is true of the viewer's state, `s`."""
    page.wait_for_function(f"() => ((s) => {expected})(({STATE})())")


def asks(word: str) -> Callable[[Request], bool]:
    """Is this request an event that says this word?"""
    return lambda request: bool(ASKED.search(request.url)) and f'"{word}"' in (request.post_data or "")


def near(color: list[int], expected: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(color, expected)) < 25


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).first.click()


# ------------------------------------------------------------------------------------------------------


def test_a_picture_is_there_without_a_click_and_arrow_keys_step(visit: Visit) -> None:
    page = visit()
    expect(page.get_by_role("heading", name="ViT Explorer")).to_be_visible()
    expect(page.locator("#card")).to_contain_text("3 layers × 4 heads")
    expect(page.locator("#checks .vx-bad")).to_have_count(0)
    expect(page.locator("#checks li.vx-good")).to_have_count(5)
    page.locator("#viewer .vit-viewer").evaluate(
        "(root) => root.querySelector('[tabindex=\"0\"], button').focus()"
    )
    start = page.evaluate(STATE)["layer"]
    page.keyboard.press("ArrowUp")
    shows(page, f"s.layer === {(start - 1) % 3}")
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    shows(page, "s.head === 1")
    page.wait_for_function("() => location.hash.includes('head=1')")


def test_an_uploaded_picture_is_what_is_shown(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    upload(page, picture_of((200, 60, 60), tmp_path))
    assert near(page.evaluate(COLOUR), (200, 60, 60))
    upload(page, picture_of((40, 160, 90), tmp_path))
    assert near(page.evaluate(COLOUR), (40, 160, 90)), "a second one too"


def test_two_visitors_at_once_see_their_own(visit: Visit, tmp_path: Path) -> None:
    first, second = visit(), visit()
    red, blue = (210, 40, 40), (40, 60, 210)
    upload(first, picture_of(red, tmp_path))
    upload(second, picture_of(blue, tmp_path))
    assert near(first.evaluate(COLOUR), red) and near(second.evaluate(COLOUR), blue)
    choose_example(first, "tower")
    assert near(second.evaluate(COLOUR), blue)


def test_a_link_brings_another_person_to_the_same_view(visit: Visit, session: Session) -> None:
    page = visit()
    choose_example(page, "cheetah")
    chosen = {"layer": 1, "head": 2, "fuse": "one", "query": 5}
    page.evaluate("(chosen) => document.querySelector('#viewer .vit-viewer').viewer.set(chosen)", chosen)
    page.wait_for_function("() => location.hash.includes('query=5')")
    colour, address = page.evaluate(COLOUR), page.evaluate("location.search + location.hash")
    other = visit(address)
    shows(other, "s.layer === 1 && s.head === 2 && s.fuse === 'one' && s.query === 5")
    assert near(other.evaluate(COLOUR), tuple(colour))
    expect(other.locator("[data-example=cheetah]")).to_have_attribute("aria-pressed", "true")
    other.get_by_label("Picture size").click()
    other.get_by_role("option", name="twice as large", exact=True).click()
    other.wait_for_function("() => location.search.includes('size=twice')")
    assert "example=cheetah" in other.evaluate("location.search"), "it is still this example"


def test_a_reload_keeps_the_view(visit: Visit) -> None:
    page = visit()
    choose_example(page, "tower")
    colour = page.evaluate(COLOUR)
    page.reload()
    page.wait_for_function(READY)
    assert near(page.evaluate(COLOUR), tuple(colour))


def test_a_bad_picture_is_one_sentence_and_nothing_is_lost(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    colour = page.evaluate(COLOUR)
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(picture_of((1, 2, 3), tmp_path)).read_bytes()[:300])
    words = tmp_path / "words.jpg"
    words.write_text("no picture")
    for file, said in ((cut, "damaged or cut short"), (words, "This file is not a picture")):
        page.locator("#picture").get_by_label("Remove Image").first.click()
        page.set_input_files("#picture input[type=file]", str(file))
        expect(page.get_by_text(said)).to_be_visible()
    assert near(page.evaluate(COLOUR), tuple(colour))
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("cat"))
    model = page.locator("#model input")
    name = model.input_value()
    model.fill("no such model")
    model.press("Enter")
    expect(page.get_by_text("no such model").first).to_be_visible()
    expect(model).to_have_value(name)
    tab(page, "How it works")
    expect(page.locator("#lesson .les-dots li")).to_have_count(15)


def test_a_reason_is_said_once_however_many_events_find_it(
    visit: Visit, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event of the picture that goes is answered when the bad one stands there, and finds that one."""
    page = visit()
    bad = tmp_path / "bad.png"
    bad.write_bytes(Path(picture_of((9, 8, 7), tmp_path)).read_bytes()[:300])
    pixels, asked, go_on, found = session.pixels, threading.Event(), threading.Event(), []

    def slowly(file, *rest):
        if Path(file).name != bad.name:
            asked.wait(PATIENCE / 1000)
            return pixels(file, *rest)
        found.append(file)
        asked.set()
        if len(found) == 1:
            go_on.wait(PATIENCE / 1000)
        return pixels(file, *rest)

    monkeypatch.setattr(session, "pixels", slowly)
    page.locator("#picture").get_by_label("Remove Image").first.click()
    page.set_input_files("#picture input[type=file]", str(bad))
    expect(page.get_by_text("damaged or cut short")).to_be_visible()
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("cat"))
    go_on.set()
    tab(page, "Why")  # what is answered later comes later
    expect(page.locator("#why-maps .vx-map")).to_have_count(len(METHODS))
    assert len(found) == 2
    expect(page.get_by_text("damaged or cut short")).to_have_count(1)


def test_every_tab_shows_its_figures(visit: Visit) -> None:
    page = visit()
    tab(page, "Why")
    expect(page.locator("#why-maps .vx-map")).to_have_count(len(METHODS))
    expect(page.locator("#why-ledger")).to_contain_text("It adds up")
    page.get_by_role("button", name="Run the race").click()
    expect(page.locator("#why-report")).to_contain_text("Deletion: lower is better", timeout=PATIENCE)
    expect(page.locator("#why-maps .vx-verdict").nth(7)).to_be_visible()
    tab(page, "How it works")
    expect(page.locator("#lesson .les-dots li")).to_have_count(15)
    tab(page, "Compare")
    for side in "AB":
        page.wait_for_function(f"() => document.querySelector('#compare-{side} .vit-viewer')?.viewer.data")
    tab(page, "About")
    expect(page.get_by_role("heading", name="What you are looking at")).to_be_visible()
    tab(page, "Heads & layers")
    expect(page.locator("#heads-board .vx-panel")).to_have_count(8)
    page.locator('#heads-board .vx-dot[data-layer="1"][data-head="3"]').first.click()
    expect(page.get_by_role("tab", name="Explore")).to_have_attribute("aria-selected", "true")
    shows(page, "s.layer === 1 && s.head === 3 && s.fuse === 'one'")  # a dot leads to its head
    tab(page, "Heads & layers")
    numbers = page.locator("#heads-board details").first
    numbers.locator("summary").focus()
    page.keyboard.press("Enter")
    numbers.get_by_role("button", name="L2.H0").focus()
    page.keyboard.press("Enter")
    shows(page, "s.layer === 2 && s.head === 0 && s.fuse === 'one'")  # and so does its number, by keyboard


def test_a_map_in_why_is_enlarged_for_the_class_that_was_chosen_there(visit: Visit) -> None:
    page = visit()
    tab(page, "Why")
    expect(page.locator("#why-maps .vx-map")).to_have_count(len(METHODS))
    page.get_by_label("Class to explain").click()
    page.get_by_role("option", name="dog", exact=True).click()
    expect(page.locator("#why-ledger")).to_contain_text("logit of dog")
    page.locator("#why-maps [data-method=relevance]").click()
    maps = "[...document.querySelector('#viewer .vit-viewer').viewer.data.maps.keys()]"
    page.wait_for_function(f"() => {maps}.includes('relevance target3')")
    shows(page, "s.target === 3 && s.method === 'relevance'")
    page.evaluate("document.querySelector('#viewer .vit-viewer').viewer.set({method: 'flow'})")
    page.wait_for_function(f"() => {maps}.some((key) => key.startsWith('flow'))")  # made beside the queue


def test_values_are_said_beside_the_pointer(visit: Visit) -> None:
    page = visit()
    tab(page, "Why")
    cell = page.locator('#why-ledger i[data-layer="1"][data-head="2"]').first
    cell.scroll_into_view_if_needed()
    page.evaluate(FRAMES)  # a page that scrolls hides them
    cell.hover()
    expect(page.locator(".vx-tip.is-shown")).to_have_text(re.compile(r"^L1\.H2: [+−][\d.e−]+ logit$"))
    page.locator("#why-ledger h3").first.hover()
    expect(page.locator(".vx-tip.is-shown")).to_have_count(0)


def test_a_link_names_the_page_and_focus_goes_where_it_leads(visit: Visit) -> None:
    page = visit()
    tab(page, "Why")
    expect(page.locator("#why-maps .vx-map")).to_have_count(len(METHODS))
    expect(page).to_have_url(re.compile("tab=why"))
    page.reload()
    expect(page.get_by_role("tab", name="Why")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#why-maps .vx-map")).to_have_count(len(METHODS))
    page.locator("#why-maps [data-method=rollout]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer canvas.vit-picture").first).to_be_focused()
    expect(page).not_to_have_url(re.compile("tab="))


def test_the_timeline_shows_every_moment_and_follows_a_run_that_goes_on(visit: Visit, run: str) -> None:
    page = visit(f"?model={run}")
    tab(page, "Training")
    said = page.locator("#training-timeline output")
    expect(said).to_contain_text("step 100")
    expect(page.locator("#training-charts [data-step]")).to_have_count(6)
    viewer = "document.querySelector('#training-viewer .vit-viewer')?.viewer"
    page.wait_for_function(f"() => {viewer}?.data")
    answer = f"JSON.stringify({viewer}.data.classes.map((c) => c.value))"
    last = page.evaluate(answer)
    page.locator("#training-charts [data-step='1']").first.hover()
    expect(said).to_contain_text("step 1 ")
    page.wait_for_function(f"(last) => {answer} !== last", arg=last)
    page.get_by_label("Play the training").click()
    expect(said).to_contain_text("step 100", timeout=PATIENCE)
    page.wait_for_function(f"(last) => {answer} === last", arg=last)
    page.get_by_label("follow a run while it trains").check()
    save_snapshot(run, randomised(ViT(tiny_config())), CARD, 200, {"accuracy": 0.9})
    expect(said).to_contain_text("step 200", timeout=PATIENCE)
    with page.expect_request(ASKED):
        page.evaluate(FOLLOW)
    tab(page, "About")
    expect(page.locator("#training-follow")).to_be_hidden()
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url) if ASKED.search(request.url) else None)
    page.evaluate(FOLLOW)
    page.evaluate(FRAMES)
    assert not calls, "nobody looks, so nothing is asked"


def test_news_of_a_run_let_it_play(visit: Visit, run: str) -> None:
    page = visit(f"?model={run}")
    page.route("**/shard/*", lambda route: None)  # no moment comes, so that it plays until it is stopped
    tab(page, "Training")
    slider = page.get_by_label("Moment of training")
    expect(slider).not_to_have_attribute("max", "0")
    before = int(slider.get_attribute("max") or 0)
    page.get_by_label("Play the training").click()
    page.get_by_label("follow a run while it trains").check()
    save_snapshot(run, randomised(ViT(tiny_config())), CARD, 300, {"accuracy": 0.9})
    expect(slider).to_have_attribute("max", str(before + 1), timeout=PATIENCE)
    expect(page.get_by_label("Pause")).to_be_visible()


def test_an_intervention_shows_before_and_after(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Intervene").click()
    page.locator("#viewer .vit-pane canvas").first.click(position={"x": 30, "y": 30})
    page.wait_for_function("() => document.querySelector('#viewer .vit-viewer').viewer.after")
    shows(page, "s.patches.length > 0")
    page.evaluate(f"{VIEWER}.set({{mode: 'method', method: 'rollout'}})")
    expect(page.locator("#viewer .vit-readout")).to_contain_text(
        "strongest at"
    )  # maps are of the whole picture
    expect(page.locator("#viewer .vit-pane:visible")).to_have_count(1)
    expect(page.locator("#viewer .vit-pane:visible")).to_contain_text("before the intervention")


def test_the_picture_keeps_still_under_a_pointer_that_paints(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Intervene").click()
    box = page.locator("#viewer canvas.vit-picture").first.bounding_box()
    assert box
    side = box["width"] / 5
    for column in range(4):
        page.mouse.move(box["x"] + (column + 0.5) * side, box["y"] + 1.5 * side)
        if not column:
            page.mouse.down()
            page.wait_for_function(f"() => {VIEWER}.after")  # the answer is there
    page.mouse.up()
    shows(page, "s.patches.join() === '5,6,7,8'")
    expect(page.locator("#viewer .vit-pane:visible")).to_contain_text("after the intervention")
    assert page.locator("#viewer canvas.vit-picture").first.bounding_box() == box
    said = page.locator("#viewer .vit-edits .vit-said")
    expect(said).to_have_text(re.compile(r"^4 patches hidden · (now it says .+ · )?.+ → .+$"))
    expect(said).to_have_role("status")
    page.evaluate("""() => {  // the pointer goes down, and is lifted where the page does not hear of it
      const picture = document.querySelector("#viewer canvas.vit-picture");
      const box = picture.getBoundingClientRect();
      const say = (name, x, buttons) => picture.dispatchEvent(new PointerEvent(name, {
        bubbles: true, buttons, clientX: box.left + x * box.width, clientY: box.top + 0.1 * box.height }));
      say("pointerdown", 0.1, 1);
      say("pointermove", 0.9, 0);
    }""")
    expect(said).to_have_text(re.compile(r"^5 patches hidden · (now it says .+ · )?.+ → .+$"))
    page.evaluate("""() => {  // undone before it was told: what is there is the answer
      const picture = document.querySelector("#viewer canvas.vit-picture");
      const box = picture.getBoundingClientRect();
      const [x, y] = [box.left + 0.5 * box.width, box.top + 0.9 * box.height];
      const at = { bubbles: true, buttons: 1, clientX: x, clientY: y };
      for (const name of ["pointerdown", "pointerup"]) picture.dispatchEvent(new PointerEvent(name, at));
      for (const name of ["pointerdown", "pointerup"]) picture.dispatchEvent(new PointerEvent(name, at));
    }""")
    expect(said).to_have_text(re.compile(r"^5 patches hidden · (now it says .+ · )?.+ → .+$"))
    expect(page.locator("#viewer .vit-lead")).to_contain_text("says:")
    page.get_by_role("button", name="Intervene").click()
    undo = page.get_by_role("button", name="Undo all")
    undo.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Intervene")).to_be_focused()


def test_what_the_server_refuses_gets_no_answer_and_says_so(visit: Visit) -> None:
    page = visit()
    all_of_it = f"""() => {{
      const {{ state, data, set }} = {VIEWER};
      set({{patches: [...Array(data.P).keys()].slice(1), query: data.pre}});
    }}"""
    page.evaluate(all_of_it)
    page.get_by_role("button", name="Intervene").click()
    page.get_by_role("button", name="Hide query patch").click()
    expect(page.locator("#viewer .vit-lead")).to_contain_text("it gives no answer")
    page.get_by_role("button", name="Undo all").click()
    expect(page.locator("#viewer .vit-lead")).to_contain_text("The model cut this picture")


def test_nothing_that_is_said_while_the_model_works_is_lost(
    visit: Visit, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, begun, trace = visit(), threading.Event(), Look.trace
    monkeypatch.setattr(Look, "trace", lambda *look, **how: (how and begun.set(), trace(*look, **how))[1])
    page.evaluate(f"""() => {{
      const viewer = {VIEWER}, {{ setAfter }} = viewer;
      window.heard = [];
      viewer.setAfter = (source) => {{ window.heard.push(source !== null); return setAfter(source); }};
    }}""")
    page.get_by_role("button", name="Intervene").click()
    with session.model_lock:  # the first is on its way when the second is said
        with page.expect_request(asks("patches")):
            page.locator("#viewer .vit-pane canvas").first.click(position={"x": 30, "y": 30})
        assert begun.wait(PATIENCE / 1000)
        page.get_by_role("button", name="Undo all").click()
        shows(page, "!s.patches.length")
    page.wait_for_function("() => window.heard.length === 2")
    assert page.evaluate("window.heard") == [True, False]
    page.wait_for_function(f"() => {VIEWER}.after === null")


def test_the_second_of_two_examples_chosen_while_the_model_works_is_shown(
    visit: Visit, session: Session
) -> None:
    page = visit()
    page.set_default_timeout(30_000)
    with session.model_lock:
        for name in ("tower", "cheetah"):
            with page.expect_request(asks("example")):
                page.locator(f"[data-example={name}]").click()
    page.wait_for_function("() => location.search.includes('example=cheetah')")
    expect(page.locator("[data-example=cheetah]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile("cheetah"))


def test_a_picture_that_did_not_come_can_be_chosen_again(visit: Visit) -> None:
    page = visit()
    page.route("**/shard/*.bin", lambda route: route.fulfill(body="a proxy's error page, say"))
    page.locator("[data-example=tower]").click()
    expect(page.locator("#viewer .vit-working")).to_contain_text("no message")
    page.unroute("**/shard/*.bin")
    before = page.evaluate(COLOUR)
    page.locator("[data-example=tower]").click()
    page.wait_for_function(f"(before) => JSON.stringify(({COLOUR})()) !== JSON.stringify(before)", arg=before)
    expect(page.locator("#viewer .vit-working")).to_be_empty()


def test_what_is_pinned_is_what_the_lesson_and_the_files_are_about(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Download").click()
    link = page.locator("#files a[aria-label='Attention of what is pinned as PNG']")
    first = link.get_attribute("href")
    page.locator("#viewer .vit-pane canvas").first.focus()
    page.keyboard.press("Shift+ArrowDown")
    expect(link).not_to_have_attribute("href", first or "")  # the list stays open, and follows
    row = (page.evaluate(STATE)["query"] - 3) // 5
    tab(page, "How it works")
    expect(page.locator("#lesson .les-left")).to_contain_text(f"our square ({row},")


def test_a_model_without_a_head_says_what_it_cannot(visit: Visit, session: Session) -> None:
    page = visit(f"?model={session.names()[1]}")
    expect(page.locator(".vit-tries button")).to_have_count(4)
    expect(page.locator(".vit-tries")).not_to_contain_text("its answers")
    tab(page, "Why")
    expect(page.locator("#why-ledger")).to_contain_text("no classification head")
    reasons = page.locator("#why-maps .is-off").filter(has_text="no classification head")
    expect(reasons).to_have_count(sum(method.class_specific for method in METHODS.values()))


def test_a_closed_tab_frees_what_it_held(
    visit: Visit, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    upload(page, picture_of((90, 90, 200), tmp_path))
    held, freed, release = session.results.held, threading.Event(), session.release
    name = page.evaluate("window.vitPage.waiting.name")  # the pages of other tests may leave late

    def released(owner: str) -> None:
        release(owner)
        if owner == name:
            freed.set()

    monkeypatch.setattr(session, "release", released)
    page.close()
    assert freed.wait(PATIENCE / 1000)
    assert session.results.held < held


@pytest.mark.parametrize(
    "theme, width, above", [("light", 390, 0.6), ("dark", 390, 0.6), ("light", 320, 0.65)]
)
def test_it_fits_a_phone(visit: Visit, theme: str, width: int, above: float) -> None:
    page = visit(f"?__theme={theme}", viewport=PHONE | {"width": width}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tops = set()
    for button in page.locator("[role=tab], .vit-tab").filter(visible=True).all():
        box = button.bounding_box()
        assert box and min(box["width"], box["height"]) >= 44, "for a finger"
        tops.add(box["y"])
    assert len(tops) == 3, "two rows of pages, one under the picture"
    top = page.locator("#viewer .vit-picture").first.bounding_box()
    assert top and top["y"] < PHONE["height"] * above, "the picture is on the first screen"
    page.locator("#viewer .vit-pane canvas").first.tap(position={"x": 100, "y": 100})
    shows(page, "s.pinned")


def test_back_and_forward_go_through_pages_and_pictures(visit: Visit) -> None:
    page = visit("?tab=why&example=tower")
    expect(page.get_by_role("tab", name="Why", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile("tab=why"))  # a link is not forgotten while the page comes
    page.get_by_role("tab", name="Explore", exact=True).click()
    page.wait_for_function("() => !location.search.includes('tab=')")
    page.locator("[data-example=cheetah]").click()
    page.wait_for_function("() => location.search.includes('example=cheetah')")
    page.go_back()
    expect(page.locator("[data-example=tower]")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.get_by_role("tab", name="Why", exact=True)).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.get_by_role("tab", name="Explore", exact=True)).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.locator("[data-example=cheetah]")).to_have_attribute("aria-pressed", "true")


def test_other_pages_say_that_an_intervention_is_not_theirs(visit: Visit) -> None:
    page = visit("?tab=why#patches=3_4")
    expect(page.locator(".vx-without")).to_contain_text("your 2 hidden patches are for Explore alone")
    page.evaluate("history.replaceState(null, '', '#frozen=2'); vitPage.sayWithout()")
    expect(page.locator(".vx-without")).to_contain_text("lets time run: your frozen time is for Explore")
    page.evaluate("history.replaceState(null, '', '#patches=3_4')")
    page.get_by_role("tab", name="Explore", exact=True).click()
    expect(page.locator(".vx-without")).to_be_hidden()


def test_what_is_read_beside_the_pointer_is_exact(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#viewer .vit-readout")).to_contain_text("gives")
    page.wait_for_function(f"() => {VIEWER}.data.exact?.size")
    expect(page.locator("#viewer .vit-readout")).not_to_contain_text("≈")


def test_keys_step_after_an_example_was_chosen(visit: Visit) -> None:
    page = visit()
    page.locator("[data-example=cheetah]").click()
    page.wait_for_function("() => location.search.includes('example=cheetah')")
    before = page.evaluate(STATE)["layer"]
    page.keyboard.press("ArrowUp")
    shows(page, f"s.layer !== {before}")
