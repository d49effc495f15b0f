"""The page without a server, with words that came along: the numbers of a tiny random CLIP and SigLIP."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import randomised, tiny_config
from firefox import Firefox
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from site_pages import served
from test_site import run
from test_site_choices import ASKED
from test_words import FAMILIES, WORDS, clip, siglip, tokenizer

from explorer.classes import Words, words_of
from explorer.cli.commands import main
from explorer.ledger import ledger
from explorer.lesson.answer import shared as last_steps
from explorer.lesson.follow import Choice, Follow
from explorer.lesson.steps import lesson_of
from explorer.methods import METHODS
from explorer.site.graph import export_graph, export_inside, inside_outputs
from vit import ViT, save, trace
from vit.card import Card
from vit.pictures import preprocess
from vit.trace import MaskPatches, ZeroHeads
from vit.words import Tower, dense_map, load_tower, patch_vectors, with_projection, with_words

READY = "() => window.vitSite?.settled"


def lively(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    """With norms that let something through, so that words and patches differ by more than rounding."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
            if "embedding" in name:
                parameter.mul_(6)
            if name == "text_model.head.bias":
                parameter.zero_()
        model.logit_scale.fill_(3.0)
    return model


def picture(i: int) -> Image.Image:
    pixels = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((60 + 9 * i, 50), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_of_a_tower_answers_with_its_vectors(family: str, tmp_path: Path) -> None:
    FAMILIES[family]().save_pretrained(tmp_path)
    tower = load_tower(tmp_path)
    model, size = with_projection(tower), tower.model.config.image_size
    graph, weights = export_graph(model, size, tower)
    image = torch.randn(3, *size)
    vector, attn, _, patches = run(graph, weights, model, tmp_path, image=image[None].numpy())
    np.testing.assert_allclose(vector, tower.project(tower.model(image[None]))[0], atol=1e-5)
    np.testing.assert_allclose(attn, trace(tower.model, image).attn, atol=1e-6)
    np.testing.assert_allclose(patches, patch_vectors(tower, image), atol=1e-5)
    # a direction in the space of words is explained as the head made of the word is
    direction = torch.nn.functional.normalize(torch.randn(1, tower.width), dim=-1)
    of_word, _ = with_words(tower, direction, ["one"], image)
    scaled = tower.scale * direction[0] / np.linalg.norm(vector)
    inside = export_inside(model, size, weights)
    found = run(inside, weights, model, tmp_path, image=image[None].numpy(), classes=scaled.numpy())
    seen = dict(zip(inside_outputs(model), found))
    np.testing.assert_allclose(seen["class_weights"], of_word.head.weight[0], atol=1e-5)
    if "ledger_heads" in seen:
        theirs = ledger(trace(of_word, image), of_word, 0)
        np.testing.assert_allclose(seen["ledger_heads"], theirs.heads, atol=1e-4)
    assert ("ledger_heads" in seen) == (family != "SigLIP")


# --- in browsers ----------------------------------------------------------------------------------------


@dataclass
class Site:
    url: str
    towers: dict[str, Tower]  # by name,
    words: dict[str, Words]  # and what each is asked for

    def image(self, name: str, shown: Image.Image) -> torch.Tensor:
        tower = self.towers[name]
        return preprocess(shown, tower.card, tower.card.size_for(tower.model.config))

    def model(self, name: str, image: torch.Tensor, chosen: list[int]) -> tuple[ViT, Card]:
        """Python's model of the chosen words."""
        names = [WORDS[k] for k in chosen]
        return with_words(self.towers[name], self.words[name].vectors[chosen], names, image)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("towers")
    for name, make in {"clip": clip, "siglip": siglip}.items():
        lively(make()).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    save(folder / "own", randomised(ViT(tiny_config(depth=1))), Card("own", tuple("abcdefg")))
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "pictures").mkdir()
    for i in range(2):
        picture(i).save(folder / "pictures" / f"{i}.png")
    models = [part for name in ("clip", "siglip", "own") for part in ("--model", str(folder / name))]
    out, given = folder / "site", ["--words", str(folder / "words.txt"), "--image", str(folder / "pictures")]
    assert main(["site", str(out), *models, *given]) == 0
    towers = {name: load_tower(folder / name) for name in ("clip", "siglip")}
    words = {name: words_of(tower, WORDS) for name, tower in towers.items()}
    with served(out) as address:
        yield Site(address, towers, words)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong


def values(page: Page) -> dict[str, float]:
    found = page.evaluate("vitSite.viewer.data.classes.map((c) => [c.name, c.value])")
    return {name: value for name, value in found}


def logits(page: Page) -> dict[str, float]:
    found = page.evaluate("vitSite.viewer.data.classes.map((c) => [c.name, c.logit])")
    return {name: value for name, value in found}


def same_answer(page: Page, site: Site, name: str, image: torch.Tensor, chosen: list[int]) -> None:
    model, card = site.model(name, image, chosen)
    of_python = model(image[None])[0]
    theirs = dict(zip(card.class_names, card.probabilities(of_python).tolist()))
    ours = values(page)
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[word] - theirs[word]) < 1e-3 for word in ours), (ours, theirs)
    found = logits(page)
    assert all(abs(found[word] - float(x)) < 1e-2 for word, x in zip(card.class_names, of_python))


def where(page: Page) -> dict[str, np.ndarray]:
    found = page.evaluate("""vitSite.kept.where().then(({ maps, control, alike }) => (
        { maps: maps.map((map) => [...map]), control: [...control], alike }))""")
    return {name: np.array(value) for name, value in found.items()}


def bring(page: Page, shown: Image.Image) -> None:
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    page.set_input_files("#file", {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    page.wait_for_function("() => vitSite.settled && vitSite.now.picture.own")


def tick(page: Page, *words: str) -> None:
    """Choose these words and no others."""
    for word in WORDS:
        page.get_by_role("checkbox", name=word).set_checked(word in words)
    chosen = [WORDS.index(word) for word in words]
    page.wait_for_function(
        f"() => vitSite.settled && String(vitSite.now.words) === '{','.join(map(str, chosen))}'"
    )


@pytest.mark.browser
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_words_are_the_classes_with_pythons_numbers(page: Page, site: Site, name: str) -> None:
    page.goto(f"{site.url}?model={name}&picture=1")
    page.wait_for_function(READY)
    image = site.image(name, picture(1))
    same_answer(page, site, name, image, [0, 1, 2])
    bring(page, picture(2))
    image = site.image(name, picture(2))
    same_answer(page, site, name, image, [0, 1, 2])
    words = site.words[name]
    ours, theirs = where(page), dense_map(site.towers[name], words.vectors, image, words.control)
    np.testing.assert_allclose(ours["maps"], theirs.maps.flatten(1), atol=2e-3)
    np.testing.assert_allclose(ours["control"], theirs.control.flatten(), atol=2e-3)
    np.testing.assert_allclose(ours["alike"], theirs.alike, atol=2e-2)
    assert theirs.maps.flatten(1).std(dim=1).min() > 1e-2, "or nothing was compared"
    # the words that are ticked compete among themselves
    tick(page, "grass", "a red ball")
    same_answer(page, site, name, image, [1, 2])
    expect(page.locator("#where figure")).to_have_count(3)
    expect(page.locator("#where figcaption b")).to_have_text(["grass", "a red ball", "control"])
    # of a changed picture the length of its vector is held
    page.evaluate("vitSite.heard('edits', { patches: [0, 5], heads: [[1, 2]] })")
    page.wait_for_function("() => vitSite.viewer.after")
    after = page.evaluate("vitSite.viewer.after.classes.map((c) => [c.name, c.value, c.logit])")
    model, card = site.model(name, image, [1, 2])
    prefix = model.config.num_prefix_tokens
    changed = trace(model, image, edits=(MaskPatches((0, 5), prefix), ZeroHeads(((1, 2),)))).logits
    assert (changed - model(image[None])[0]).abs().max() > 0.02, "or nothing was changed"
    for word, value, logit in after:
        k = card.class_names.index(word)
        assert abs(logit - float(changed[k])) < 1e-2
        assert abs(value - float(card.probabilities(changed)[k])) < 1e-3
    # of one word alone CLIP says a number, SigLIP yes or no
    page.evaluate("vitSite.heard('edits', { patches: [], heads: [] })")
    tick(page, "grass")
    model, card = site.model(name, image, [1])
    assert page.evaluate("vitSite.viewer.data.scores") == card.scores
    assert abs(values(page)["grass"] - float(card.values(model(image[None])[0]))) < 1e-2


@pytest.mark.browser
def test_what_explains_a_class_explains_a_word(page: Page, site: Site) -> None:
    page.goto(f"{site.url}?model=clip&picture=1&words=grass,a red ball")
    page.wait_for_function(READY)
    image = site.image("clip", picture(1))
    model, _ = site.model("clip", image, [1, 2])
    # the ledger's map is made in the page, for any word
    page.evaluate("vitSite.heard('need_maps', { method: 'logit_ledger', target: 1 })")
    page.wait_for_function(
        "() => [...vitSite.viewer.data.maps.keys()].some((key) => key === 'logit_ledger target1')"
    )
    ours = np.array(page.evaluate("[...vitSite.viewer.data.maps.get('logit_ledger target1')]"))
    theirs = ledger(trace(model, image), model, 1).map().flatten().numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())
    # maps with gradients came along for the answer among all words, where that word is asked for
    whole, _ = site.model("clip", image, [0, 1, 2])
    answer = int(whole(image[None])[0].argmax())
    chosen = sorted([answer, (answer + 1) % 3])
    tick(page, *(WORDS[k] for k in chosen))
    at = chosen.index(answer)
    key = f"relevance target{at}"
    page.wait_for_function(f"() => vitSite.viewer.data.maps.has('{key}')")
    ours = np.array(page.evaluate(f"[...vitSite.viewer.data.maps.get('{key}')]"))
    theirs = METHODS["relevance"](trace(whole, image, target=answer), model=whole).flatten().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_lesson_ends_with_the_words(page: Page, site: Site, name: str) -> None:
    page.goto(f"{site.url}?model={name}&picture=0&words=a dog,a red ball&tab=lesson")
    page.wait_for_function("() => window.vitSite?.followed.lesson.lesson?.steps.at(-1).data.looked")
    ours = page.evaluate("vitSite.followed.lesson.lesson")
    image = site.image(name, picture(0))
    model, card = site.model(name, image, [0, 2])
    t, choice = trace(model, image), Choice(**ours["choice"])
    once = last_steps(Follow(t, model, card, choice))
    theirs = lesson_of(t, model, card, choice, once)
    for a, b in zip(ours["steps"], theirs["steps"], strict=True):
        assert [a["name"], a["sentence"]] == [b["name"], b["sentence"]]
    a, b = ({step["name"]: step["data"] for step in each["steps"]} for each in (ours, theirs))
    for ours_said, theirs_said in zip(a["answer"]["classes"], b["answer"]["classes"], strict=True):
        assert ours_said["name"] == theirs_said["name"]
        assert abs(ours_said["logit"] - theirs_said["logit"]) < 1e-2
    product = np.dot(a["answer"]["vector"], a["answer"]["weights"]) + a["answer"]["bias"]
    assert abs(product - a["answer"]["classes"][0]["logit"]) < 1e-2
    for one, other in zip(a["answer"]["without"], b["answer"]["without"], strict=True):
        np.testing.assert_allclose(one["values"], other["values"], atol=2e-3)
    np.testing.assert_allclose(a["why"]["looked"], b["why"]["looked"], atol=2e-3)


@pytest.mark.browser
def test_chosen_words_are_in_the_address(page: Page, site: Site) -> None:
    page.goto(f"{site.url}?model=clip")
    page.wait_for_function(READY)
    expect(page.locator("#words")).to_contain_text("These are the words that came along with this page")
    expect(page).not_to_have_url(re.compile("words"))  # all of them is what is there anyway
    page.get_by_role("checkbox", name="a dog").press("Space")
    page.wait_for_function("() => vitSite.settled && vitSite.now.words.length === 2")
    expect(page).to_have_url(re.compile(re.escape("words=grass%2Ca+red+ball")))
    page.reload()
    page.wait_for_function(READY)
    assert page.evaluate("vitSite.now.words") == [1, 2]
    expect(page.get_by_role("checkbox", name="a dog")).not_to_be_checked()
    page.goto(f"{site.url}?model=clip&words=grass,a cat,a red ball,a fish")
    page.wait_for_function(READY)
    assert page.evaluate("vitSite.now.words") == [1, 2]
    expect(page.locator("#said")).to_have_text(
        "This page has no word “a cat” and no word “a fish”: it shows what it has."
    )
    page.go_back()
    page.wait_for_function(READY)
    page.go_back()
    page.wait_for_function("() => vitSite.settled && vitSite.now.words.length === 3")
    for word in WORDS:
        page.get_by_role("checkbox", name=word).uncheck()
    expect(page.locator("#words [role=status]")).to_have_text(
        "Tick a word: what is shown is still the answer about the last ones."
    )
    page.wait_for_function("() => vitSite.settled && String(vitSite.now.words) === '2'")
    page.get_by_label("Model").select_option("own")
    page.wait_for_function("() => vitSite.settled && vitSite.now.model.name === 'own'")
    expect(page.locator("#words")).to_be_hidden()
    expect(page.locator("#where")).to_be_hidden()
    assert values(page).keys() <= set("abcdefg")
    expect(page).not_to_have_url(re.compile("words"))


@pytest.mark.browser
def test_the_same_words_again_are_no_other_picture(page: Page, site: Site) -> None:
    page.goto(f"{site.url}?model=clip&words=grass,a red ball")
    page.wait_for_function(READY)
    page.evaluate("vitSite.viewer.set({ patches: [1] })")
    page.evaluate("vitSite.choose({ words: [...vitSite.now.words] })")  # as of an address
    assert page.evaluate("vitSite.viewer.state.patches") == [1]


@pytest.mark.browser
def test_words_ticked_beside_a_camera_are_in_the_address(page: Page, site: Site) -> None:
    page.goto(f"{site.url}?model=clip")
    page.wait_for_function(READY)
    page.evaluate(ASKED)
    page.locator("#camera").click()
    page.evaluate("allow()")
    page.wait_for_function("() => vitSite.own.frames > 2")
    page.get_by_role("checkbox", name="a dog").press("Space")
    page.wait_for_function("() => location.search.includes('words=grass%2Ca+red+ball')")
    page.locator("#camera").click()
    page.wait_for_function("() => vitSite.settled && vitSite.now.words.length === 2")
    expect(page).to_have_url(re.compile(re.escape("words=grass%2Ca+red+ball")))


@pytest.mark.browser
def test_words_in_firefox(site: Site) -> None:
    image = site.image("siglip", picture(1))
    model, card = site.model("siglip", image, [0, 1])
    theirs = dict(zip(card.class_names, card.probabilities(model(image[None])[0]).tolist()))
    with Firefox.start() as firefox:
        firefox.goto(f"{site.url}?model=siglip&picture=1&words=a dog,grass")
        firefox.wait_for("window.vitSite && vitSite.settled")
        found = dict(firefox.evaluate("vitSite.viewer.data.classes.map((c) => [c.name, c.value])"))
        assert all(abs(found[word] - theirs[word]) < 1e-3 for word in WORDS[:2])
        assert firefox.evaluate("document.querySelectorAll('#where canvas').length") == 3
        assert not firefox.log


def test_words_that_no_model_takes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["site", str(tmp_path / "out"), "--words"]
    assert main([*asked, "a dog", "--model", "shapes"]) != 0
    assert "None of these models takes words: name one that was trained with texts" in capsys.readouterr().err
    assert main([*asked, ",".join(map(str, range(101))), "--model", "shapes"]) != 0
    assert "101 words are more than a visitor can choose among" in capsys.readouterr().err
    save(tmp_path / "bare", randomised(ViT(tiny_config(num_classes=0))), Card("bare"))
    assert main([*asked, "a dog", "--model", str(tmp_path / "bare")]) != 0
    assert "bare has no text tower that is read here" in capsys.readouterr().err
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\x00")
    assert main([*asked, str(tmp_path / "words.txt"), "--model", "shapes"]) != 0
    assert "words.txt cannot be read as a text of words: save it as UTF-8." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
