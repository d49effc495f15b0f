"""The page without a server: one choice follows another before that is shown, and the last one counts."""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from site_pages import READY, served, two_models, visits

from vit.shapes import shapes_sample

pytestmark = pytest.mark.browser
SHOWN = "[vitSite.now.model.name, vitSite.now.picture.name]"
# a camera that the visitor is asked about: allow() says yes; `streams` are all that it gave
ASKED = """
window.streams = [];
window.allowed = [];
navigator.mediaDevices.getUserMedia = async () => {
  await new Promise((resolve) => allowed.push(resolve));
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 }), pen = canvas.getContext("2d");
  setInterval(() => { pen.fillStyle = `hsl(${performance.now() % 360}, 80%, 50%)`; pen.fillRect(0, 0, 64, 64); }, 30);
  streams.push(canvas.captureStream());
  return streams.at(-1);
};
window.allow = () => allowed.splice(0).forEach((yes) => yes());
window.live = () => streams.flatMap((one) => one.getTracks()).filter(({ readyState }) => readyState === "live").length;
"""  # noqa: E501


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("choices"))


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Callable[..., Page]]:
    with served(site) as url, visits(browser, url) as go:
        yield go


def until(page: Page, come: Callable[[], object]) -> None:
    """Wait for requests that the test answers itself."""
    for _ in range(600):
        if come():
            return
        page.wait_for_timeout(50)
    raise AssertionError("they were not made")


class Held:
    """Requests for weights, which wait until they are let go."""

    def __init__(self, page: Page):
        self.page, self.routes = page, list[Route]()
        page.route("**/weights.bin.gz", lambda route: self.routes.append(route))

    def fail(self) -> None:
        """The first one, once it is asked for, finds nothing."""
        until(self.page, lambda: self.routes)  # until then the model's constants come
        self.routes.pop().fulfill(status=404)

    def release(self) -> None:
        for route in self.routes:
            route.continue_()
        self.routes.clear()
        self.page.unroute("**/weights.bin.gz")  # one that is still to come passes


def bring(page: Page) -> None:
    content = BytesIO()
    shapes_sample(11, 7)[0].save(content, "PNG")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": content.getvalue()})
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.own")


def film(page: Page) -> None:
    """Ask for the camera, and have it."""
    page.evaluate(ASKED)
    page.locator("#camera").click()
    page.evaluate("allow()")


def test_a_picture_chosen_before_the_first_is_there_is_the_first(browser: Browser, site: Path) -> None:
    with served(site) as url:
        page = browser.new_page(service_workers="block")
        page.set_default_timeout(90_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        held = Held(page)
        page.goto(url)
        page.locator('[data-picture="two"]').click()
        page.locator("#to-lesson").click()  # so may a tab
        page.locator("#to-explore").click()
        held.release()
        page.wait_for_function(READY)
        assert page.evaluate(SHOWN) == ["first", "two"] and not wrong
        expect(page.locator('[data-picture="two"]')).to_have_attribute("aria-pressed", "true")
        page.context.close()


def test_a_picture_chosen_while_a_model_comes_is_shown_to_that_model(visit) -> None:
    page = visit(service_workers="block")
    held = Held(page)
    page.locator("#model").select_option("second")
    expect(page.locator("#said")).to_have_text("Loading second …")
    page.locator('[data-picture="two"]').click()
    held.release()
    page.wait_for_function(READY)
    assert page.evaluate(SHOWN) == ["second", "two"]
    expect(page.locator("#model")).to_have_value("second")


def test_what_could_not_be_loaded_can_be_chosen_again(visit) -> None:
    page = visit(service_workers="block")
    page.route("**/second/weights.bin.gz", lambda route: route.fulfill(status=404))
    page.locator("#model").select_option("second")
    expect(page.locator("#said")).to_contain_text("A file of this page is missing")
    expect(page.locator("#model")).to_have_value("first")  # which is what is shown
    page.unroute("**/second/weights.bin.gz")
    page.locator("#model").select_option("second")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'second'")


def test_what_is_said_of_a_model_that_goes_is_not_asked_of_the_one_that_comes(visit) -> None:
    page = visit(service_workers="block")
    held = Held(page)
    page.locator("#model").select_option("second")
    page.evaluate("void vitSite.choose({ words: [0], moment: 0 })")
    held.release()
    page.wait_for_function(READY)
    assert page.evaluate("[...Object.values(vitSite.now)].slice(2)") == [-1, None, None]
    assert page.evaluate(SHOWN) == ["second", "one"]


def test_a_graphics_chip_is_tried_with_each_model_once(visit) -> None:
    page = visit()
    page.evaluate("""() => {
        Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({ info: {} }) } });
        const { engine, site } = vitSite, ask = engine.ask.bind(engine);
        window.tried = 0;
        window.runtimes = 0;
        const answer = async ({ wasm, script }) => {
          if (wasm && script) runtimes++;
          return { faster: ++tried === 2 }; };
        engine.ask = (name, ...rest) => (name === "gpu" ? answer(...rest) : ask(name, ...rest));
        site.webgpu = site.runtime;
    }""")
    for choice in ({"model": "first"}, {"model": "second"}, {"words": None}):
        page.evaluate("(choice) => vitSite.choose(choice)", choice)
    expect(page.locator("#rate")).to_contain_text("by the graphics chip")
    page.evaluate("vitSite.choose({ model: 'first' })")
    expect(page.locator("#rate")).not_to_contain_text("by the graphics chip")
    assert page.evaluate("[tried, runtimes]") == [2, 1]


def test_a_look_that_fails_leaves_what_is_shown(visit) -> None:
    page = visit()
    page.evaluate("""() => { const { engine } = vitSite; engine.look = async () => {
        delete engine.look;
        throw new Error('No look.'); }; }""")
    page.locator("#model").select_option("second")
    expect(page.locator("#said")).to_have_text("No look.")
    expect(page.locator("#model")).to_have_value("first")
    page.evaluate("vitSite.viewer.set({ mode: 'rollout' })")  # which is asked of the look
    page.wait_for_function("() => vitSite.viewer.data.layers.every((layer) => layer?.rollout)")
    page.evaluate("vitSite.viewer.set({ mode: 'attention' })")
    page.evaluate("vitSite.edit({ patches: [0], heads: [], frozen: -1, frame: 0 })")
    page.wait_for_function("() => vitSite.viewer.after")
    assert page.evaluate("vitSite.viewer.after.meta?.name ?? vitSite.viewer.after.name") == "first"
    assert page.evaluate("vitSite.opened === vitSite.now.model")


def test_the_way_back_keeps_an_own_picture(visit) -> None:
    page = visit()
    bring(page)
    page.locator("#to-lesson").click()
    page.wait_for_function("() => vitSite.settled && vitSite.followed.missing === false")
    page.evaluate("window.lesson = vitSite.followed.lesson.lesson")
    page.evaluate("vitSite.followed.lesson.go(2)")
    page.wait_for_function("location.hash.includes('how=3')")
    page.go_back()  # a step of the lesson
    assert page.evaluate("vitSite.now.picture.own && window.lesson === vitSite.followed.lesson.lesson")
    page.go_back()  # the lesson
    page.wait_for_function("() => vitSite.tab === 'explore' && vitSite.settled")
    assert page.evaluate("vitSite.now.picture.own")
    page.go_back()  # to before it was brought
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'one'")


def test_the_way_back_keeps_an_own_picture_that_the_address_does_not_name(visit) -> None:
    page = visit("?model=first")
    bring(page)
    page.locator('[data-picture="two"]').click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'two'")
    page.go_back()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name !== 'two'")
    assert page.evaluate("vitSite.now.picture.own")


def test_a_graphics_chip_whose_files_do_not_come_is_not_missed(visit) -> None:
    page = visit()
    page.evaluate("""async () => {
        Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({}) } });
        vitSite.site.webgpu = { wasm: 'none.wasm', script: 'none.js' };
        await vitSite.choose({ picture: vitSite.site.pictures[1] }); }""")
    assert page.evaluate("[vitSite.settled, vitSite.opened.byChip]") == [True, False]
    assert page.locator("#said").text_content() == ""


def test_arrow_keys_go_from_tab_to_tab_and_leave_the_viewer_alone(visit) -> None:
    page = visit()
    seen = page.evaluate("({ ...vitSite.viewer.state })")
    for before, key, after in (("explore", "ArrowRight", "lesson"), ("lesson", "ArrowRight", "explore")):
        page.locator(f"#to-{before}").press(key)
        expect(page.locator(f"#to-{after}")).to_be_focused()
        expect(page.locator(f"#to-{after}")).to_have_attribute("aria-selected", "true")
    page.locator("#to-explore").press("ArrowLeft")
    expect(page.locator("#to-lesson")).to_be_focused()
    assert page.evaluate("({ ...vitSite.viewer.state })") == seen


def test_a_lesson_that_was_left_half_made_is_made_again(visit) -> None:
    page = visit()
    page.locator("#to-lesson").click()
    page.wait_for_function("() => vitSite.followed.missing === false")
    page.locator("#to-explore").click()
    page.locator('[data-picture="two"]').click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.name === 'two'")
    page.evaluate("""() => { const { engine } = vitSite, ask = engine.ask.bind(engine); window.asked = 0;
        engine.ask = async (name, ...rest) => { const answer = await ask(name, ...rest);
          if (name === 'lesson' && !asked++) vitSite.open('explore');  // left between its two halves
          return answer; }; }""")
    page.locator("#to-lesson").click()
    page.wait_for_function("() => vitSite.tab === 'explore' && asked === 1")
    page.locator("#to-lesson").click()
    page.wait_for_function("() => asked > 1 && vitSite.followed.missing === false")
    assert page.evaluate("vitSite.followed.prepared === vitSite.prepared")
    assert page.locator("#said").text_content() == ""


def test_a_lesson_becomes_whole_although_a_model_chosen_meanwhile_does_not_come(visit) -> None:
    page = visit(service_workers="block")
    page.route("**/second/weights.bin.gz", lambda route: route.fulfill(status=404))
    page.evaluate("""() => { const { engine } = vitSite, ask = engine.ask.bind(engine);
        engine.ask = async (name, ...rest) => { const answer = await ask(name, ...rest);
          if (name === 'shared') { engine.ask = ask; vitSite.choose({ model: 'second' }); }
          return answer; }; }""")
    page.locator("#to-lesson").click()
    expect(page.locator("#said")).to_contain_text("A file of this page is missing")
    page.wait_for_function("() => vitSite.followed.lesson.lesson.steps.every(({ data }) => !data.missing)")


def test_a_camera_that_was_called_off_stays_off(visit) -> None:
    page = visit()
    page.evaluate(ASKED)
    camera = page.locator("#camera")
    for call_off in (camera, page.locator('[data-picture="two"]'), page.locator("#to-lesson")):
        page.locator("#to-explore").click()
        camera.click()
        expect(camera).to_have_attribute("aria-pressed", "true")
        call_off.click()
        expect(camera).to_have_attribute("aria-pressed", "false")
        page.evaluate("allow()")
        page.wait_for_function("() => streams.length")
        page.wait_for_function("() => live() === 0")
        assert page.evaluate("vitSite.own.frames === 0 && !vitSite.own.camera.on")
        page.evaluate("streams.length = 0")
    page.locator("#to-explore").click()
    for _ in range(3):  # on, off, on
        camera.click()
    page.evaluate("allow()")
    page.wait_for_function("() => vitSite.own.frames > 2 && streams.length === 2 && live() === 1")
    camera.click()
    page.wait_for_function("() => live() === 0 && vitSite.settled")


def test_frames_take_no_error_back(visit) -> None:
    page = visit()
    film(page)
    page.wait_for_function("() => vitSite.own.frames > 2")
    page.evaluate("vitSite.say('Wrong.', true)")
    page.wait_for_function("(seen) => vitSite.own.frames > seen + 2", arg=page.evaluate("vitSite.own.frames"))
    expect(page.locator("#said")).to_have_text("Wrong.")
    page.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.locator("#said")).to_contain_text("The camera has ended")
    expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
    expect(page).not_to_have_url(re.compile("picture="))  # what it has left is the visitor's own


def test_enter_freezes_the_camera_and_pins_nothing(visit) -> None:
    page = visit()
    film(page)
    page.wait_for_function("() => vitSite.own.frames > 2")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Enter")
    page.wait_for_function("() => live() === 0 && vitSite.settled")
    assert not page.evaluate("vitSite.viewer.state.pinned")


def test_a_camera_before_the_first_model_waits_for_one(browser: Browser, site: Path) -> None:
    with served(site) as url:
        page = browser.new_page(service_workers="block")
        page.set_default_timeout(90_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.route("**/first/weights.bin.gz", lambda route: route.fulfill(status=404))
        page.goto(url)
        expect(page.locator("#said")).to_contain_text("A file of this page is missing", timeout=60_000)
        film(page)
        page.wait_for_function("() => vitSite.own.camera.on")
        page.wait_for_timeout(300)
        page.locator("#model").select_option("second")
        page.wait_for_function("() => vitSite.own.frames > 2")
        assert not wrong
        page.context.close()


def test_a_square_that_does_not_come_is_waited_for_no_more(visit) -> None:
    page = visit("?tab=lesson")
    page.wait_for_function("() => vitSite.followed.missing === false")
    assert page.evaluate("fetch(vitSite.followed.lesson.shownPicture).catch(() => 'gone')") == "gone"
    page.evaluate("""() => { const { engine } = vitSite; engine.ask = async () => {
        delete engine.ask;
        throw new Error('no'); }; }""")
    page.evaluate("vitSite.followed.lesson.choose({ patch: 1 })")
    page.wait_for_function("() => Object.hasOwn(vitSite.engine, 'ask') === false")
    page.wait_for_function("() => vitSite.followed.lesson.wanted === null")
    page.evaluate("vitSite.settled = false")  # another choice comes
    page.evaluate("vitSite.followed.lesson.choose({ patch: 1 })")
    page.evaluate("vitSite.engine.ask('plan')")  # what was asked before has been answered by then
    assert page.evaluate("vitSite.followed.lesson.lesson.choice.patch") != 1


def fail_lesson(page: Page, question: str) -> None:
    """The engine fails once at this question, when the lesson of another picture is made."""
    page.wait_for_function("() => vitSite.followed.missing === false")
    page.evaluate(
        """(question) => { const { engine } = vitSite, { ask } = engine;
        engine.ask = async (name, ...rest) => {
          if (name !== question) return ask.call(engine, name, ...rest);
          delete engine.ask;
          throw new Error(`No ${question}.`); }; }""",
        question,
    )
    page.locator('[data-picture="two"]').click()
    expect(page.locator("#said")).to_have_text(f"No {question}.")


def test_a_lesson_that_failed_is_made_again_for_the_next_square(visit) -> None:
    page = visit("?tab=lesson")
    fail_lesson(page, "pass")
    page.evaluate("vitSite.followed.lesson.choose({ patch: 1 })")
    page.wait_for_function("() => vitSite.followed.missing === false")
    assert page.evaluate("vitSite.followed.lesson.lesson.choice.patch") == 1


def test_a_lesson_that_could_not_be_made_can_be_made_again(visit) -> None:
    page = visit("?tab=lesson")
    fail_lesson(page, "follow")
    expect(page.locator(".les-status")).to_contain_text("The lesson could not be made.")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("() => vitSite.followed.fits && vitSite.followed.missing === false")
    expect(page.locator(".les-status")).to_have_text("")
    assert page.locator("#said").text_content() == ""


def test_a_square_is_told_of_although_the_model_chosen_before_it_does_not_come(visit) -> None:
    page = visit("?tab=lesson", service_workers="block")
    page.wait_for_function("() => vitSite.followed.missing === false")
    held = Held(page)
    page.evaluate("void vitSite.choose({ model: 'second' })")
    expect(page.locator("#said")).to_have_text("Loading second …")
    page.evaluate("vitSite.followed.lesson.choose({ patch: 1 })")
    expect(page.locator(".les-status")).to_have_text("…")
    held.fail()
    expect(page.locator("#said")).to_contain_text("is missing")
    expect(page.locator(".les-status")).to_have_text("")
    assert page.evaluate("vitSite.followed.lesson.lesson.choice.patch") == 1


def test_what_is_hidden_is_hidden_from_a_fast_camera_too(visit) -> None:
    page = visit()
    film(page)
    page.wait_for_function("() => vitSite.own.frames > 2")
    page.get_by_role("button", name="Intervene").click()
    page.locator("canvas.vit-picture").first.focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("x")
    page.wait_for_function("() => vitSite.viewer.state.patches.length === 1 && vitSite.viewer.after")
    page.evaluate("""() => {
        const { viewer } = vitSite, { setAfter } = viewer, looks = window.looks = { at: 0, seen: 0 };
        viewer.setAfter = async (source) => {
          const shown = await setAfter(source);
          looks.at += 1;
          requestAnimationFrame(() => { looks.seen += viewer.after !== null; });
          return shown; }; }""")
    page.wait_for_function("() => window.looks.at > 9")
    assert page.evaluate("looks.at - looks.seen") <= 1, "each is painted, but the one on its way"
    # told while a frame is looked at, and while something is chosen
    told = "vitSite.heard('edits', {{ patches: {}, heads: [], frozen: -1, frame: 0 }})"
    page.evaluate(
        """() => new Promise((resolve) => { const { look } = vitSite;
        vitSite.look = async (...given) => {
          delete vitSite.look;
          await look.apply(vitSite, given);
          resolve(TOLD); }; })""".replace("TOLD", told.format("[1, 2]"))
    )
    page.wait_for_function("(seen) => vitSite.own.frames > seen + 2", arg=page.evaluate("vitSite.own.frames"))
    assert page.evaluate("vitSite.now.edits.patches") == [1, 2]
    page.evaluate(f"() => {{ const chosen = vitSite.choose({{}}); {told.format('[3]')}; return chosen; }}")
    assert page.evaluate("vitSite.now.edits.patches") == [3]
    page.locator("#camera").click()


def test_a_camera_frozen_while_a_frame_is_looked_at_keeps_what_is_hidden_and_explained(visit) -> None:
    page = visit()
    film(page)
    page.wait_for_function("() => vitSite.own.frames > 2")
    page.evaluate("vitSite.viewer.set({ patches: [5], target: 3 })")
    page.evaluate("""() => { const { look } = vitSite; vitSite.look = (...given) => {
        delete vitSite.look;
        vitSite.own.watch(false);
        return look.apply(vitSite, given); }; }""")
    page.wait_for_function("() => !vitSite.own.camera.on && vitSite.settled && vitSite.viewer.after")
    assert page.evaluate("[vitSite.viewer.state.patches, vitSite.viewer.state.target]") == [[5], 3]


def hide_next(page: Page) -> None:
    """Hide the next patch, until the page has heard of it."""
    page.evaluate("""() => { window.told = false; vitSite.heard = (name, payload) => {
        Object.getPrototypeOf(vitSite).heard.call(vitSite, name, payload);
        told ||= name === 'edits'; }; }""")
    page.locator("canvas.vit-picture").first.press("Shift+ArrowRight")
    page.keyboard.press("x")
    page.wait_for_function("() => told")


def test_what_is_hidden_while_another_picture_is_on_its_way_is_hidden_in_the_one_that_is_shown(visit) -> None:
    page = visit()
    page.evaluate("""() => { const { engine } = vitSite, look = engine.look.bind(engine); window.held = [];
        window.hold = () => { engine.look = (given) => { delete engine.look;
          return new Promise((pass, fail) => held.push({ fail, pass: () => pass(look(given)) })); }; }; }""")
    page.get_by_role("button", name="Intervene").click()
    for end, said in (("fail(new Error('No look.'))", "No look."), ("pass()", "")):
        page.evaluate("hold(), void vitSite.choose({ picture: vitSite.site.pictures[1] })")
        page.wait_for_function("() => held.length")
        hide_next(page)
        page.evaluate(f"held.pop().{end}")
        page.wait_for_function(
            "(said) => vitSite.settled && document.getElementById('said').textContent === said", arg=said
        )
        if said:
            page.wait_for_function("() => vitSite.viewer.after")
    assert page.evaluate(
        "[vitSite.now.picture.name, vitSite.viewer.state.patches, vitSite.viewer.after]"
    ) == ["two", [], None]


def test_what_is_hidden_while_a_model_opens_is_not_asked_of_that_model(visit) -> None:
    page = visit()
    page.evaluate("""() => { const { engine } = vitSite, ask = engine.ask.bind(engine); window.edited = 0;
        engine.ask = (name, rest, ...more) => { const answer = ask(name, rest, ...more);
          if (name === 'open') vitSite.heard('edits', { patches: [1], heads: [], frozen: -1, frame: 0 });
          if (rest?.edits) edited++;
          return answer; }; }""")
    page.evaluate("vitSite.choose({ model: 'second' })")
    assert page.evaluate("[vitSite.settled, edited]") == [True, 0]


def test_the_engine_forgets_what_is_gone(visit) -> None:
    page = visit()
    page.evaluate("""() => { const { engine } = vitSite, ask = engine.ask.bind(engine);
        window.looks = new Set([vitSite.kept.key]);
        engine.ask = (name, rest, ...more) => {
          if (name === 'look') looks.add(rest.key);
          if (name === 'forget') looks.delete(rest.key);
          return ask(name, rest, ...more); }; }""")
    page.evaluate("vitSite.edit({ patches: [0], heads: [], frozen: -1 })")
    page.wait_for_function("() => vitSite.viewer.after && looks.size === 2")
    page.evaluate("vitSite.choose({ picture: vitSite.site.pictures[1] })")
    assert page.evaluate("looks.size === 1 && looks.has(vitSite.kept.key)")


def test_what_is_no_longer_hidden_is_not_told(visit) -> None:
    page = visit()
    page.get_by_role("button", name="Intervene").click()
    page.locator("canvas.vit-picture").first.press("Shift+ArrowRight")
    page.evaluate("""() => {
        vitSite.heard = (name, payload) => { if (name === 'edits') window.told = payload.patches; };
        const x = new KeyboardEvent('keydown', { key: 'x', bubbles: true });
        document.querySelector('canvas.vit-picture').dispatchEvent(x);
        window.hidden = vitSite.viewer.state.patches.length;
        vitSite.viewer.set({ patches: [] }, true); }""")  # as another picture does
    page.wait_for_function("() => window.told")
    assert page.evaluate("[hidden, told]") == [1, []]


def test_maps_of_another_picture_are_not_shown(visit) -> None:
    page = visit(service_workers="block")
    held: list[Route] = []
    page.route("**/maps/*", lambda route: held.append(route))
    page.evaluate("void vitSite.choose({ picture: vitSite.site.pictures[1] })")
    until(page, lambda: len(held) == 1)
    page.evaluate("void vitSite.choose({ picture: vitSite.site.pictures[0] })")
    until(page, lambda: len(held) == 2)
    assert page.evaluate("vitSite.now.picture.name") == "one"
    with page.expect_request_finished(lambda request: request == held[0].request):
        held[0].continue_()
    page.wait_for_timeout(100)  # in which it could have been shown
    assert page.evaluate("vitSite.viewer.data.maps.size") == 0
    held[1].continue_()
    page.wait_for_function(READY)
    assert page.evaluate("vitSite.viewer.data.maps.size") > 0


def test_pages_at_one_host_keep_their_own_files(browser: Browser, site: Path, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(site)
    (tmp_path / "b").symlink_to(site)
    (tmp_path / "serve.py").write_text((site / "serve.py").read_text(encoding="utf-8"), encoding="utf-8")
    with served(tmp_path) as url:
        page = browser.new_page()
        page.set_default_timeout(90_000)
        for name in "ab":
            page.goto(f"{url}{name}/")
            page.wait_for_function(READY)
            page.evaluate("navigator.serviceWorker.ready.then(() => true)")
            page.wait_for_function("() => navigator.serviceWorker.controller")
        kept = page.evaluate("caches.keys()")
        assert len(kept) == 2 and all(any(f"/{name}/ " in one for one in kept) for name in "ab")
        page.context.close()
