"""A visitor's own classes in the app: words of a tiny random CLIP, and pictures that become prototypes."""

import gc
import re
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
import torch
from conftest import kept, randomised, tiny_config
from PIL import Image
from playwright.sync_api import Browser, expect
from test_app import handler, visitor
from test_words import COLOURS, clip, tokenizer

from benchmarks.client import Client
from explorer import ui
from explorer.cache import nbytes
from explorer.classes import MOST, Prototypes, typed, words_of
from explorer.look import DOUBLE
from explorer.methods import METHODS
from explorer.payload import unpack
from explorer.render import number
from explorer.session import Session
from explorer.views.classes import where_report
from explorer.views.page import Failed, Shown
from vit import Card, ViT, save
from vit.checkpoint import MAX_BYTES
from vit.hub import read_pretrained
from vit.prototypes import with_prototypes
from vit.words import CONTROL, dense_map, load_tower, text_vectors, with_words

WORDS = ("a dog", "grass")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    clip().save_pretrained(folder / "clip")
    tokenizer().save_pretrained(folder / "clip")
    save(folder / "dino", randomised(ViT(tiny_config(num_classes=0))), Card("dino"))
    save(folder / "tiny", randomised(ViT(tiny_config())), Card("tiny", tuple("abcdefg")))
    return {name: str(folder / name) for name in ("tiny", "clip", "dino")}


@pytest.fixture(scope="module")
def session(models) -> Session:
    return Session(extra=tuple(models.values()))


@pytest.fixture(scope="module")
def demo(session: Session) -> gr.Blocks:
    return ui.build(session)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(2):
            Image.new("RGB", (40, 30), tuple(min(255, c + 9 * i) for c in colour)).save(
                root / name / f"{i}.png"
            )
    return root


def use_words(demo, shown: Shown, text: str, name: str = "ann") -> Shown:
    text = handler(demo, "on_say", "classes")(text)
    handler(demo, "on_tower", "classes")(shown, text, visitor(name=name))
    shown, target, key = handler(demo, "on_words", "classes")(shown, text, visitor(name=name))
    assert target is None and key
    return shown


def test_typed_words_are_the_classes_everywhere(demo, session, models, pictures) -> None:
    picture = str(pictures / "red" / "0.png")
    shown = use_words(demo, Shown(picture, models["clip"]), "a dog, grass")
    look = session.look(picture, models["clip"], classes=shown.classes)
    tower = load_tower(models["clip"])
    model, _ = with_words(tower, text_vectors(tower, WORDS), WORDS, look.image)
    torch.testing.assert_close(look.trace().logits, model(look.image[None])[0], rtol=1e-4, atol=1e-4)
    _, meta = unpack(kept(session, look.addresses()["head"].rpartition("/")[2]) or b"")
    assert {c["name"] for c in meta["classes"]} == set(WORDS) and meta["scores"] == "softmax"
    _, dropdown, *_ = [None, *handler(demo, "on_open", "why")(shown, None, visitor())]
    assert {name for name, _ in dropdown.choices} == set(WORDS)
    assert look.map(METHODS["relevance"], 1).shape == look.trace().grid.shape
    plain = session.look(picture, models["clip"])
    assert not len(plain.trace().logits), "the model itself is as it was"


def test_who_has_typed_nothing_sees_nothing_of_it(demo, session, models, pictures) -> None:
    shown = Shown(str(pictures / "red" / "0.png"), models["clip"])
    use_words(demo, shown, "a dog, grass")
    box, where = handler(demo, "on_open", "classes")(shown, visitor(name="bob"))
    assert box.visible and where == ""
    box, _ = handler(demo, "on_open", "classes")(shown._replace(model=models["tiny"]), visitor(name="bob"))
    assert not box.visible, "it has classes of its own"


def test_each_word_has_a_map_beside_the_control(demo, session, models, pictures) -> None:
    shown = use_words(demo, Shown(str(pictures / "red" / "0.png"), models["clip"]), "a dog, grass")
    _, where = handler(demo, "on_open", "classes")(shown, visitor())
    tower, look = load_tower(models["clip"]), session.look(shown.picture, shown.model)
    vectors = text_vectors(tower, [*WORDS, CONTROL])
    dense = dense_map(tower, vectors[:2], look.image, vectors[2])
    assert where.count("<figure") == 3
    for alike in dense.alike.tolist():
        assert f"{number(alike, '+.2f')} like the control" in where
    assert f"cosine {number(float(dense.maps[0].min()), '.3f')} to" in where


def test_names_are_text(demo, models, pictures) -> None:
    shown = use_words(demo, Shown(str(pictures / "red" / "0.png"), models["clip"]), "<img src=x>, grass")
    _, where = handler(demo, "on_open", "classes")(shown, visitor())
    assert "<img src=x>" not in where and "&lt;img" in where


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Name at least one"),
        ("a, a", "twice"),
        ("e\u0301, \u00e9", "twice"),
        ("a, \u202ea\u200b", "twice"),
        (",".join(["x" * 70] * 900), "^.{1,90}$"),
        (",".join(map(str, range(5000))), "are more than"),
        ("\u200b, \u202e, \u200d, \0", "Name at least one"),
        (",".join(map(str, range(MOST + 1))), "more than 20"),
        ("x" * 81, "longer than 80 letters"),
    ],
)
def test_words_are_bounded(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        typed(text)


def test_words_are_what_people_read(demo, session, models, pictures) -> None:
    shown = Shown(str(pictures / "red" / "0.png"), models["clip"])
    typed_so = " a\0  red\tball\x1b,\ud800 \u202ecat\u2066,日本、犬，鳥، قطة \n👩\u200d👧"
    names = use_words(demo, shown, typed_so).classes.names
    assert names == ("a red ball", "cat", "日本", "犬", "鳥", "قطة", "👩\u200d👧")


def test_a_model_without_words_says_so(demo, models, pictures) -> None:
    with pytest.raises(gr.Error, match="has no text tower"):
        use_words(demo, Shown(str(pictures / "red" / "0.png"), models["dino"]), "a dog, grass")


def test_a_text_tower_that_does_not_come_holds_up_nobody_else(
    session, url, models, pictures, monkeypatch
) -> None:
    """Both visitors have the same address, which has one place in each lane: downloads have one, too."""
    asked, let_go = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        asked.set()
        let_go.wait(60)

    picture = (pictures / "red" / "0.png").read_bytes()
    with Client(url, timeout=30) as slow, Client(url, timeout=30) as other:
        for client in (slow, other):
            client.show(picture, models["clip"])
        monkeypatch.setattr(session, "fetch_tower", hang)
        try:
            slow.ask("on_say", ["a dog"])
            slow.join("on_tower", [None, None])
            assert asked.wait(20)
            other.ask("on_say", ["a red ball, grass"])
            other.ask("on_words", [None, None])  # raises if it is not answered
            assert other.show((pictures / "blue" / "0.png").read_bytes(), models["clip"])["head"]
        finally:
            let_go.set()


def test_a_text_tower_is_fetched_once_and_in_a_step_of_its_own(models, pictures, monkeypatch) -> None:
    """What needs it asks the Hub for nothing: it may hang."""
    fetched: list[tuple] = []
    folder, session = Path(models["clip"]), Session(public=True)
    read = read_pretrained(folder, models["clip"], MAX_BYTES)
    monkeypatch.setattr(session, "load", lambda name: read)
    fetch = lambda name, *how, token=None: fetched.append((name, *how, token)) or folder  # noqa: E731
    monkeypatch.setattr("explorer.session.tower_folder", fetch)
    demo = ui.build(session)
    picture = str(session.folder / "a.png")
    shutil.copy(pictures / "red" / "0.png", picture)
    shown = Shown(picture, "some/clip")
    handler(demo, "on_model")("some/clip", Failed(), visitor())
    lanes = {fn.name: fn.concurrency_id for fn in demo.fns.values()}
    assert lanes["on_tower"] == "hub" and lanes["on_words"] == "slow"
    with pytest.raises(gr.Error, match="The text tower of some/clip is not here yet"):
        handler(demo, "on_words", "classes")(shown, "a dog", visitor())
    with pytest.raises(gr.Error, match="twice"):
        handler(demo, "on_tower", "classes")(shown, "a, a", visitor())
    assert not fetched
    assert use_words(demo, shown, "a dog").classes.names == ("a dog",)
    assert use_words(demo, shown, "a dog, grass").classes.names == WORDS
    assert fetched == [("some/clip", session.hub_bytes, session.lent, False)], "with nobody's rights"


def test_a_visitors_classes_weigh_little_beside_their_model(session, models, pictures) -> None:
    words = words_of(session.tower(models["clip"]), WORDS)
    assert nbytes(words) < 4 * words.vectors.nbytes + words.projection.nbytes + 1000
    look = session.look(pictures / "red" / "0.png", models["clip"], classes=words)
    own, plain = look.loaded, session.model(models["clip"])
    assert nbytes(look.remembered("classes")) < 8000
    for made, base in ((own.model, plain.model), (own.half, plain.half)):
        assert made.blocks[0].attn.qkv.weight is base.blocks[0].attn.qkv.weight
        assert made.head.weight.shape == (2, 32) and made.head.weight.dtype == made.norm.weight.dtype
        assert not base.config.num_classes and isinstance(base.head, torch.nn.Identity)
    own.half.requires_grad_(False)
    answer = own.half(look.image[None].bfloat16())[0].float()
    torch.testing.assert_close(answer, own.model(look.image[None])[0], rtol=0.1, atol=0.5)


@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_a_model_that_is_pushed_out_goes_though_a_visitor_has_classes_of_it(models, pictures, kind) -> None:
    """A page holds the classes for as long as it is open, and what is made of them is kept for it."""
    session, name = Session(), models["clip"]
    classes = words_of(session.tower(name), WORDS)
    if kind == "pictures":
        classes = Prototypes(("a", "b"), (torch.randn(2, 32), torch.randn(2, 32)))
    look = session.look(pictures / "red" / "0.png", name, classes=classes)
    assert look.loaded.half and look.trace() and bool(where_report(look)) == (kind == "words")
    weights = weakref.ref(session.model(name).model.blocks[0].attn.qkv.weight)
    session.models.max_bytes = 1
    session.model(models["tiny"])
    gc.collect()
    assert weights() is None
    assert look.trace(1).logits.shape == (2,), "it is read once more"


def test_shown_pictures_become_classes(demo, session, models, pictures) -> None:
    shown, kept_now = Shown(str(pictures / "red" / "0.png"), models["dino"]), None
    show, hear = handler(demo, "on_pictures", "classes"), handler(demo, "on_bring", "classes")

    def bring(name: str, files: list[str]) -> list:
        brought: list = []
        assert hear(brought, name, files) == "", "the box is free for the next name"
        return brought

    for name in sorted(COLOURS):
        files = [str(path) for path in sorted((pictures / name).glob("*.png"))]
        kept_now, said, button = show(shown, kept_now, bring(name, files), visitor())
        assert f"{name} (2)" in said
    assert button.interactive
    shown, _, _ = handler(demo, "on_shown", "classes")(shown, kept_now, visitor())
    look = session.look(shown.picture, shown.model, classes=shown.classes)
    plain = session.model(models["dino"])
    model, card = with_prototypes(plain.model, plain.card, pictures)
    assert look.card.class_names == card.class_names == tuple(sorted(COLOURS))
    torch.testing.assert_close(look.trace().logits, model(look.image[None])[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(gr.Error, match="Give the class a name"):
        show(shown, kept_now, bring(" ", []), visitor())
    with pytest.raises(gr.Error, match="at least one picture"):
        show(shown, kept_now, bring("x", []), visitor())
    with pytest.raises(gr.Error, match="21 pictures are more than 20"):
        show(shown, kept_now, bring("x", [shown.picture] * 21), visitor())
    with pytest.raises(gr.Error, match="at least two classes"):
        handler(demo, "on_shown", "classes")(shown, None, visitor())


def test_classes_brought_together_are_shown_as_far_as_possible(demo, models, pictures, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: said.append(message))
    files = list((pictures / "red").iterdir())
    brought = [("red", files), ("x", []), ("blue", files)]
    shown = Shown(str(files[0]), models["dino"])
    (_, now), text, _ = handler(demo, "on_pictures", "classes")(shown, None, brought, visitor())
    assert now.names == ("red", "blue") and "blue (2)" in text and not brought
    assert len(said) == 1 and "at least one picture" in said[0]


def test_shown_classes_are_known_by_their_pictures_not_by_their_names_alone(models, pictures) -> None:
    """Two visitors may show others under the same names: neither sees what was made for the other."""
    session, names = Session(extra=tuple(models.values())), ("a", "b")
    features = (torch.randn(2, 32), torch.randn(2, 32))
    one, turned = Prototypes(names, features), Prototypes(names, features[::-1])
    assert one.key == Prototypes(names, features).key
    assert len({one.key, turned.key, Prototypes(names[::-1], features).key}) == 3
    rows = torch.randn(3, 32)  # the same pictures, of which another class has the second
    assert Prototypes(names, rows.split([1, 2])).key != Prototypes(names, rows.split([2, 1])).key
    looks = [session.look(pictures / "red" / "0.png", models["dino"], classes=c) for c in (one, turned)]
    first, second = (look.trace().logits for look in looks)
    torch.testing.assert_close(first, second.flip(0))
    assert not torch.allclose(first, second)


def test_a_class_of_the_same_name_takes_the_place_of_the_old_one() -> None:
    old, other, new = torch.zeros(2, 4), torch.ones(3, 4), torch.full((1, 4), 2.0)
    both = Prototypes(("a", "b"), (old, other)).and_also("a", new)
    assert both.names == ("a", "b") and both.features[0] is new and both.features[1] is other
    assert Prototypes(("a",), (old,)).and_also("b", new).features == (old, new)


def test_the_control_of_words_is_the_prompt_that_means_nothing(models) -> None:
    tower = load_tower(models["clip"])
    (control,) = text_vectors(tower, [CONTROL])
    for words in (WORDS, ("grass", CONTROL, "a dog")):
        found = words_of(tower, words)
        torch.testing.assert_close(found.control, control)
        torch.testing.assert_close(found.vectors, text_vectors(tower, words))


def test_nobody_waits_while_a_picture_of_a_class_is_decoded(
    demo, session, models, pictures, monkeypatch
) -> None:
    def decode(file):
        assert not session.model_lock.locked()
        return Image.open(file).convert("RGB")

    monkeypatch.setattr("explorer.classes.open_safely", decode)
    shown = Shown(str(pictures / "red" / "0.png"), models["tiny"])
    files = list((pictures / "red").iterdir())
    assert {fn.concurrency_id for fn in demo.fns.values() if fn.name == "on_pictures"} == {"file"}
    kept_now, *_ = handler(demo, "on_pictures", "classes")(shown, None, [("red", files)], visitor())
    assert len(kept_now[1].features[0]) == len(files)


def test_showing_a_class_ends_when_nobody_waits_for_it(models, pictures, monkeypatch) -> None:
    session, read = Session(extra=tuple(models.values())), []

    def leave(file):
        read.append(file)
        session.release("ann")
        return Image.open(file).convert("RGB")

    monkeypatch.setattr("explorer.classes.open_safely", leave)
    shown = Shown(str(pictures / "red" / "0.png"), models["dino"])
    files = list((pictures / "red").iterdir())
    with pytest.raises(gr.Error, match="Stopped"):
        handler(ui.build(session), "on_pictures", "classes")(shown, None, [("red", files)], visitor())
    assert len(read) == 1 < len(files)


def test_strangers_show_no_more_than_they_may_ask_for(models, pictures, monkeypatch) -> None:
    public = Session(public=True, extra=(models["dino"],))
    picture = public.folder / "0.png"
    shutil.copy(pictures / "red" / "0.png", picture)
    show = handler(ui.build(public), "on_pictures", "classes")
    cost = public.look(picture, models["dino"]).cost.flops
    monkeypatch.setattr("explorer.look.PUBLIC_WORK_LIMIT", cost)
    large = Shown(str(picture), models["dino"], DOUBLE)
    assert show(large, None, [("red", [picture])], visitor())[0], "at the model's own size"
    with pytest.raises(gr.Error, match="too much where others wait"):
        show(large, None, [("red", [picture] * 2)], visitor())


def test_another_model_forgets_them_and_another_picture_does_not(demo, models, pictures) -> None:
    first = use_words(demo, Shown(str(pictures / "red" / "0.png"), models["clip"]), "a dog, grass")
    on_show = handler(demo, "on_show")
    other = str(pictures / "blue" / "0.png")
    screen = on_show(other, first.model, first.size, first, None, ui.Edits(), Failed(), visitor())
    assert screen.shown.classes is first.classes
    screen = on_show(other, models["dino"], first.size, screen.shown, None, ui.Edits(), Failed(), visitor())
    assert screen.shown.classes is None


# ---- in a browser --------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, url: str, models) -> Iterator:
    context, complaints = browser.new_context(viewport={"width": 1280, "height": 900}), []
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}?model={models['clip']}")
    yield page
    context.close()
    assert complaints == []


@pytest.mark.browser
def test_words_are_typed_and_explained(page) -> None:
    expect(page.locator("#viewer .vit-lead")).to_contain_text(
        "classes in the box “Classes of your own” below."
    )
    box = page.get_by_label("Words, with commas between them")
    box.fill("a dog, grass, " + "W" * 80)
    page.get_by_role("button", name="Use these words").click()
    expect(page.locator("#viewer .vit-classes")).to_contain_text("grass")
    expect(page.locator("#where .vx-map")).to_have_count(4)
    wide = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth).length"
    assert page.locator("#where figcaption").evaluate_all(wide) == 0, "a word without blanks is broken"
    box.fill("a, a")
    box.press("Enter")
    expect(page.get_by_text("is there twice")).to_be_visible()
    page.get_by_role("tab", name="Why").click()
    expect(page.get_by_label("Class to explain")).to_have_value(re.compile("a dog|grass"))


@pytest.mark.browser
def test_an_answer_on_its_way_leaves_what_is_typed_meanwhile(page, monkeypatch) -> None:
    """A link's words stand in the box at once, and no later answer writes there."""
    box, answers = page.get_by_label("Words, with commas between them"), page.locator("#viewer .vit-classes")
    expect(box).to_be_visible(timeout=90_000)
    slow = lambda look: time.sleep(2) or where_report(look)  # noqa: E731
    monkeypatch.setattr("explorer.views.classes.where_report", slow)
    page.goto(page.url.partition("#")[0] + "&words=a+dog,grass")
    expect(answers).to_contain_text("grass", timeout=90_000)
    expect(box).to_have_value("a dog, grass")
    box.fill("a red ball, grass")
    expect(page.locator("#where .vx-map")).to_have_count(3, timeout=90_000)
    box.press("Enter")
    expect(answers).to_contain_text("a red ball", timeout=90_000)
    hear = "() => { const { news } = vitPage; vitPage.news = (told) => { window.heard = 1; news(told); }; }"
    page.evaluate(hear)
    page.go_back()
    page.go_forward()  # before the answer
    page.wait_for_function("() => window.heard")
    expect(answers).to_contain_text("a red ball")
    expect(page).to_have_url(re.compile(re.escape("words=a+red+ball")))
    expect(box).to_have_value("a red ball, grass")


@pytest.mark.browser
def test_typed_words_are_in_the_address(page) -> None:
    box, answers = page.get_by_label("Words, with commas between them"), page.locator("#viewer .vit-classes")
    box.fill("a dog, grass")
    box.press("Enter")
    page.wait_for_function("() => location.search.includes('words=a+dog%2Cgrass')")
    page.reload()
    expect(answers).to_contain_text("grass", timeout=90_000)
    expect(box).to_have_value("a dog, grass")
    expect(page.locator("#where .vx-map")).to_have_count(3)
    expect(page).to_have_url(re.compile(re.escape("words=a+dog%2Cgrass")))
    box.fill("a red ball, grass")
    box.press("Enter")
    expect(answers).to_contain_text("a red ball")
    page.go_back()
    expect(answers).to_contain_text("a dog", timeout=90_000)
    page.go_back()  # to before there were any
    expect(page.locator("#where .vx-map")).to_have_count(0, timeout=90_000)
    expect(page).not_to_have_url(re.compile("words"))


def test_words_of_a_link_that_cannot_be_had(demo, models, pictures) -> None:
    shown = Shown(str(pictures / "red" / "0.png"), models["dino"])
    on_link, on_words = handler(demo, "on_link", "classes"), handler(demo, "on_words", "classes")
    assert on_link(gr.EventData(None, {"words": "a dog"})) == ("a dog", "a dog")
    assert on_link(gr.EventData(None, {"words": "a,b"})) == ("a,b", "a, b")
    with pytest.raises(gr.Error, match="has no text tower that is read here"):
        on_words(shown, "a dog", visitor())
    assert on_link(gr.EventData(None, {"words": ["no text"]})) == (None, gr.skip())
    back, target, key = on_words(shown, None, visitor())
    assert back.classes is None and target is None and key
