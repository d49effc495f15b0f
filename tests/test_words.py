"""vit/words.py and vit/prototypes.py: words and pictures as classes. A tiny random CLIP, offline."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import transformers as hf
from conftest import randomised, tiny_config
from PIL import Image
from safetensors.torch import save as serialize
from test_pretrained import same, scrambled
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from explorer.cli.commands import main
from explorer.methods import METHODS
from vit import Card, CheckpointError, ViT, load, trace
from vit.folders import DataError
from vit.pictures import preprocess
from vit.prototypes import features_of, with_means, with_prototypes
from vit.trace import Recorder
from vit.words import (
    CONTROL,
    NEIGHBOURHOOD,
    TEMPLATES,
    Tower,
    checked_words,
    dense_map,
    load_tower,
    load_words,
    patch_vectors,
    save_words,
    text_vectors,
    with_words,
)

WORDS = ("a dog", "grass", "a red ball")
SHAPE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8)
TEXT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
TEXT |= dict(vocab_size=60, max_position_embeddings=16)
IMAGE = torch.randn(3, 32, 48)  # not square, not the tower's own size


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Every word of the prompts is a token: enough to tell them apart."""
    text = " ".join([*TEMPLATES, *WORDS, CONTROL]).replace("{}", "").replace("-", " - ").split()
    vocabulary = {"<pad>": 0, "<unk>": 1, "<bos>": 2} | {
        word: 3 + i for i, word in enumerate(dict.fromkeys(text))
    }
    vocabulary["<eos>"] = TEXT["vocab_size"] - 1  # CLIP pools at the largest
    kernel = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    kernel.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<bos>", 2), ("<eos>", vocabulary["<eos>"])]
    kernel.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    special = dict(pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>")
    return hf.PreTrainedTokenizerFast(tokenizer_object=kernel, **special)


def clip() -> hf.CLIPModel:
    text = TEXT | dict(eos_token_id=TEXT["vocab_size"] - 1, bos_token_id=2, pad_token_id=0)
    vision = SHAPE | dict(intermediate_size=64)
    return scrambled(hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)))


def tipsv2() -> hf.Tipsv2Model:
    config = hf.Tipsv2Config(vision_config=SHAPE | dict(num_register_tokens=1), text_config=TEXT)
    model = scrambled(hf.Tipsv2Model(config))
    model.temperature.fill_(0.05)
    return model


def siglip() -> hf.SiglipModel:
    text = TEXT | dict(
        projection_size=32, pad_token_id=0, bos_token_id=2, eos_token_id=TEXT["vocab_size"] - 1
    )
    vision = SHAPE | dict(intermediate_size=64)
    model = scrambled(hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)))
    model.logit_scale.fill_(2.0)
    model.logit_bias.fill_(-3.0)
    return model


FAMILIES = {"CLIP": clip, "TIPSv2": tipsv2, "SigLIP": siglip}


@pytest.fixture(params=FAMILIES)
def pair(request, tmp_path: Path) -> tuple[hf.PreTrainedModel, Tower]:
    theirs = FAMILIES[request.param]()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")  # in several files
    tokenizer().save_pretrained(tmp_path)
    return theirs, load_tower(tmp_path)


def features_of_theirs(theirs: hf.PreTrainedModel, prompts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return theirs.get_text_features(**inputs_of(theirs, prompts)).pooler_output


def inputs_of(theirs: hf.PreTrainedModel, prompts: list[str]) -> dict[str, torch.Tensor]:
    """SigLIP was trained on texts that are filled up to their full length, and reads all of it."""
    if isinstance(theirs, hf.SiglipModel):
        longest = TEXT["max_position_embeddings"]
        filled = tokenizer()(prompts, padding="max_length", max_length=longest, return_tensors="pt")
        return {"input_ids": filled["input_ids"]}
    found = tokenizer()(prompts, padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def test_words_are_the_mean_of_their_prompts(pair) -> None:
    theirs, tower = pair
    ours = text_vectors(tower, WORDS)
    for word, vector in zip(WORDS, ours):
        each = features_of_theirs(theirs, [template.format(word) for template in TEMPLATES])
        same(vector, F.normalize(F.normalize(each, dim=-1).mean(dim=0), dim=-1))
    alone = text_vectors(tower, WORDS, templates=("{}",))
    same(alone, F.normalize(features_of_theirs(theirs, list(WORDS)), dim=-1))


def test_the_head_made_of_words_answers_as_the_whole_model_does(pair) -> None:
    theirs, tower = pair
    native = torch.randn(3, 32, 32)
    vectors = text_vectors(tower, WORDS, templates=("{}",))
    model, card = with_words(tower, vectors, WORDS, native)
    whole = theirs(**inputs_of(theirs, list(WORDS)), pixel_values=native[None])
    torch.testing.assert_close(model(native[None]), whole.logits_per_image, rtol=1e-4, atol=1e-4)
    pools = isinstance(theirs, hf.SiglipModel)
    assert card.class_names == WORDS and card.scores == ("sigmoid" if pools else "softmax")
    traced = trace(model, native, target=1)
    for name in ("relevance", "gradcam", "pooling_attention" if pools else "logit_ledger"):
        assert METHODS[name](traced, model=model).shape == (4, 4)


def test_of_one_word_there_is_no_softmax(pair) -> None:
    _, tower = pair
    model, card = with_words(tower, text_vectors(tower, ["grass"]), ["grass"])
    assert card.scores == ("none" if tower.bias is None else "sigmoid") and model.config.num_classes == 1


def naclip(tower: Tower, image: torch.Tensor) -> torch.Tensor:
    """The formula in float64, token by token."""
    model, config = tower.model.double(), tower.model.config
    seen = trace(model.float(), image, keep=("attn",))
    x = seen.tokens[config.depth - 1].double()
    block = model.double().blocks[-1]
    y = block.norm1(x)[config.num_prefix_tokens :]
    d, (h, w) = config.head_dim, seen.grid.shape
    _, k, v = block.attn.qkv(y).chunk(3, dim=-1)
    out = torch.zeros_like(k)
    for head in range(config.num_heads):
        part = slice(head * d, (head + 1) * d)
        for i in range(h * w):
            scores = torch.stack([k[i, part] @ k[j, part] / d**0.5 for j in range(h * w)])
            for j in range(h * w):
                far = (i // w - j // w) ** 2 + (i % w - j % w) ** 2
                scores[j] += torch.exp(torch.tensor(-far / (2 * NEIGHBOURHOOD**2), dtype=torch.float64))
            out[i, part] = scores.softmax(0) @ v[:, part]
    vectors = model.norm(block.attn.proj(out)) @ tower.projection.double().T
    model.float()
    return F.normalize(vectors, dim=-1)


def test_the_dense_map_is_its_formula(pair) -> None:
    theirs, tower = pair
    if tower.projection is not None:
        expected = naclip(tower, IMAGE)
    elif tower.model.attn_pool is not None:  # theirs, on a sequence of one patch at a time
        native = torch.randn(3, 32, 32)
        tokens = theirs.vision_model(native[None]).last_hidden_state[0]
        alone = torch.cat([theirs.vision_model.head(token[None, None]) for token in tokens])
        same(patch_vectors(tower, native), F.normalize(alone, dim=-1))
        expected = patch_vectors(tower, IMAGE).double()
    else:  # trained for it: the patches after the last block
        native = torch.randn(3, 32, 32)
        tokens = theirs.vision_model(native[None]).last_hidden_state[0, 2:]
        same(patch_vectors(tower, native), F.normalize(tokens, dim=-1))
        expected = patch_vectors(tower, IMAGE).double()
    vectors = text_vectors(tower, WORDS)
    control = text_vectors(tower, [CONTROL])[0]
    dense = dense_map(tower, vectors, IMAGE, control)
    maps = (vectors.double() @ expected.T).unflatten(1, (4, 6))
    same(dense.maps.double(), maps, 2e-6)
    same(dense.control.double(), (control.double() @ expected.T).unflatten(0, (4, 6)), 2e-6)
    pairs = torch.stack([maps[0].flatten(), (control.double() @ expected.T)])
    same(dense.alike[0].double(), torch.corrcoef(pairs)[0, 1], 1e-4)


def test_a_word_that_means_nothing_has_the_map_of_the_control(pair) -> None:
    _, tower = pair
    control = text_vectors(tower, [CONTROL])
    same(dense_map(tower, control, IMAGE, control[0]).alike, torch.ones(1))


def test_a_table_of_words_goes_without_a_text_tower(pair, tmp_path: Path) -> None:
    _, tower = pair
    vectors = text_vectors(tower, WORDS)
    save_words(tmp_path / "words.safetensors", vectors, WORDS, tower)
    words, back = load_words(tmp_path / "words.safetensors", tower)
    assert words == WORDS and (tmp_path / "words.safetensors").stat().st_size < 1000
    same(back, vectors, 1e-3)
    with pytest.raises(CheckpointError, match=f"was made for {tower.name}, not for another"):
        load_words(tmp_path / "words.safetensors", replace(tower, name="another", projection=None))
    with pytest.raises(CheckpointError, match="is no table of words"):
        load_words(next(tower.folder.glob("model-00001*")), tower)


@pytest.mark.parametrize(
    "words, change, said",
    [
        (["a", 1, {}], lambda x: x, "is no table of words"),
        ([["a"], "b", "c"], lambda x: x, "is no table of words"),
        (["a", "", "c"], lambda x: x, "is damaged: each of its words needs a name"),
        (["a", "b", "c"], lambda x: x[:2], "is damaged"),
        (["a", "b", "c"], lambda x: x.T, "is damaged"),
        (["a", "b", "c"], lambda x: x.int(), "finite floats"),
        (["a", "b", "c"], lambda x: x / 0, "finite floats"),
    ],
)
def test_a_table_that_was_tampered_with_is_one_sentence(pair, words, change, said, tmp_path: Path) -> None:
    _, tower = pair
    about = {"format": "vit-words", "words": json.dumps(words), "space": tower.space, "tower": tower.name}
    vectors = change(torch.ones(3, tower.width)).contiguous()
    (tmp_path / "words.safetensors").write_bytes(serialize({"vectors": vectors}, about))
    with pytest.raises(CheckpointError, match=said):
        load_words(tmp_path / "words.safetensors", tower)


def test_clip_in_timms_layout_takes_its_words_from_a_table(tmp_path: Path) -> None:
    """Its head is the projection, and the text tower is not in its files."""
    shape = dict(embed_dim=32, depth=2, num_heads=4, img_size=[32, 32])
    theirs = scrambled(timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=512, **shape))
    theirs.head.bias.zero_()
    timm.models.save_for_hf(theirs, tmp_path / "timm", model_args=shape, safe_serialization=True)
    tower = load_tower(tmp_path / "timm")
    image, vectors = torch.randn(3, 32, 32), F.normalize(torch.randn(3, 512), dim=-1)
    same(tower.project(tower.model(image[None])), theirs(image[None]))
    other = replace(tower, name="openai/clip", projection=theirs.head.weight.clone())  # the same elsewhere
    save_words(tmp_path / "table.safetensors", vectors, WORDS, other)
    words, back = load_words(tmp_path / "table.safetensors", tower)
    model, _ = with_words(tower, back, words, image)
    same(model(image[None])[0], 100 * F.normalize(theirs(image[None])[0], dim=0) @ back.T, 1e-4)
    assert dense_map(tower, back, IMAGE).maps.shape == (3, 2, 3)
    with pytest.raises(CheckpointError, match="has no tokenizer among its files"):
        text_vectors(tower, WORDS)


def test_the_perception_encoder_in_timms_layout_pools_and_then_projects(tmp_path: Path) -> None:
    shape = dict(embed_dim=32, depth=2, num_heads=4, img_size=[32, 32])
    theirs = scrambled(timm.create_model("vit_pe_core_tiny_patch16_384.fb", num_classes=512, **shape))
    theirs.head.bias.zero_()
    timm.models.save_for_hf(theirs, tmp_path, model_args=shape, safe_serialization=True)
    tower, image = load_tower(tmp_path), torch.randn(3, 32, 32)
    same(tower.project(tower.model(image[None])), theirs(image[None]))
    patches = theirs.forward_features(image[None])[:, 1:]  # (1, P, D), past the class token
    alone = [F.normalize(theirs.forward_head(patches[:, i : i + 1]), dim=-1)[0] for i in range(4)]
    same(patch_vectors(tower, image), torch.stack(alone))


@pytest.mark.parametrize(
    "words, said", [("  ", "Name at least one thing"), ("a,a ", "twice"), ("a ", "are more than 1000")]
)
def test_words_that_are_none(words: str, said: str) -> None:
    given = [f"a{i}" for i in range(1001)] if "more" in said else words.split(",")
    with pytest.raises(CheckpointError, match=said):
        checked_words(given)


def test_a_model_without_words_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="shapes has no text tower that is read here"):
        load_tower("shapes")
    theirs = clip()
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no tokenizer among its files"):
        text_vectors(load_tower(tmp_path), ["a dog"])
    with pytest.raises(CheckpointError, match=r"vectors of the shape \[3, 5\]"):
        with_words(load_tower(tmp_path), torch.ones(3, 5), WORDS)


def test_an_image_tower_of_siglip_alone_has_no_words(tmp_path: Path) -> None:
    theirs = siglip()
    state = {name: x for name, x in theirs.state_dict().items() if not name.startswith("logit_")}
    theirs.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match="image tower alone: words need the whole model"):
        load_tower(tmp_path)


def test_without_sentencepiece_one_sentence_asks_for_it(tmp_path: Path, monkeypatch) -> None:
    siglip().save_pretrained(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install sentencepiece"):
        text_vectors(load_tower(tmp_path), ["a dog"])


# --- prototypes -----------------------------------------------------------------------------------------

COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        (tmp_path / name / "more").mkdir(parents=True)
        for i in range(3):
            noisy = tuple(min(255, max(0, c + 9 * i)) for c in colour)
            Image.new("RGB", (24 + i, 20), noisy).save(tmp_path / name / ("more" if i else ".") / f"{i}.png")
    (tmp_path / "red" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    return tmp_path


@pytest.mark.parametrize("classes", [0, 7])
def test_a_few_pictures_of_each_become_classes(pictures: Path, classes: int) -> None:
    """The nearest mean of features, by its definition, and every method works on it."""
    plain = randomised(ViT(tiny_config(num_classes=classes)))
    model, card = with_prototypes(plain, Card("tiny"), pictures)
    assert card.class_names == ("blue", "green", "red") and "3 prototypes" in card.source
    image = preprocess(Image.new("RGB", (20, 20), (210, 40, 30)), card, (12, 20))
    bare = randomised(ViT(tiny_config(num_classes=0)))
    body = {name: x for name, x in plain.state_dict().items() if not name.startswith("head.")}
    bare.load_state_dict(body)
    each = {name: torch.stack(list(features_of(plain, Card("tiny"), pictures / name))) for name in COLOURS}
    means = torch.stack([each[name].mean(dim=0) for name in sorted(each)]).double()
    own = sum(float((x - x.mean(dim=0)).square().sum()) for x in each.values()) / (9 - 3)
    far = (bare(image[None])[0].double() - means).square().sum(dim=1)
    expected = (-far / (2 * own / means.shape[1])).softmax(0)
    same(card.probabilities(model(image[None])[0].double()), expected, 1e-3)
    assert METHODS["relevance"](trace(model, image, target=2), model=model).shape == (3, 5)


@pytest.mark.parametrize("more", [{}, dict(num_classes=7), dict(num_registers=2, pos_embed_prefix=False)])
def test_of_a_distilled_model_the_class_token_is_asked(pictures: Path, more: dict) -> None:
    plain = randomised(ViT(tiny_config(**dict(num_classes=0) | more, distillation=True)), 0.2)
    model, card = with_prototypes(plain, Card("tiny"), pictures)
    assert model.config.prefix_names[1] == "[REG1]" and len(card.class_names) == 3
    image, recorder = torch.randn(1, 3, 12, 20), Recorder({"pooled"})
    plain(image, recorder)
    same(model(image), model.head(recorder.seen["pooled"][None]), 1e-3)


@pytest.mark.parametrize("spread", [0.7, 0.0])
def test_the_head_of_prototypes_is_the_formula_whatever_their_lengths(spread: float) -> None:
    """Of means of one length a bias says nothing; here it has to. Without a spread theirs is taken."""
    means = torch.randn(4, 32) * torch.tensor([0.5, 1.0, 2.0, 5.0])[:, None]
    model, card = with_means(ViT(tiny_config(num_classes=0)), Card("x"), tuple("abcd"), means, spread)
    c = means.double()
    variance = (spread or float((c - c.mean(dim=0)).square().sum() / 4)) / 32
    torch.testing.assert_close(model.head.weight, (c / variance).float())
    torch.testing.assert_close(model.head.bias, (-(c**2).sum(dim=1) / 2 / variance).float())
    features = torch.randn(50, 32) * 3
    nearest = torch.cdist(features, means).argmin(dim=1)
    assert torch.equal(model.head(features).argmax(dim=1), nearest) and len(nearest.unique()) > 1
    assert card.class_names == tuple("abcd") and card.scores == "softmax"


def test_pictures_of_classes_go_where_the_model_is(pictures: Path) -> None:
    """Here a place without numbers, as a GPU is another than the pictures'."""
    elsewhere = ViT(tiny_config(num_classes=0)).to("meta")
    assert all(x.is_meta for x in features_of(elsewhere, Card("tiny"), pictures / "red"))


def test_a_class_is_called_as_people_type_it(pictures: Path) -> None:
    """A Mac writes é as two letters."""
    (pictures / "red").rename(pictures / unicodedata.normalize("NFD", "café"))
    plain = randomised(ViT(tiny_config(num_classes=0)))
    assert with_prototypes(plain, Card("tiny"), pictures)[1].class_names == ("blue", "café", "green")
    (pictures / "green").rename(pictures / "café")
    with pytest.raises(DataError, match="Two classes are both called café"):
        with_prototypes(plain, Card("tiny"), pictures)


def test_one_class_is_none(pictures: Path) -> None:
    for name in ("blue", "green"):
        (pictures / name).rename(pictures / f".{name}")
    with pytest.raises(CheckpointError, match="needs at least two folders with a readable picture each"):
        with_prototypes(load("shapes")[0], Card("tiny"), pictures)
    with pytest.raises(CheckpointError, match="There is no folder nowhere"):
        with_prototypes(load("shapes")[0], Card("tiny"), "nowhere")


# --- the command line -----------------------------------------------------------------------------------


def test_words_and_prototypes_on_the_command_line(pictures: Path, tmp_path_factory, capsys) -> None:
    clips, out = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("out")
    clip().save_pretrained(clips)
    tokenizer().save_pretrained(clips)
    picture = str(pictures / "red" / "0.png")
    typed = ["--model", str(clips), "--words", "a dog, grass"]
    assert (
        main(["map", picture, *typed, "--method", "relevance", "--target", "grass", "--out", f"{out}/m.csv"])
        == 0
    )
    assert "grass" in capsys.readouterr().out
    assert main(["where", picture, *typed, "--out", f"{out}/w.csv", "--out", f"{out}/w.png"]) == 0
    said = capsys.readouterr().out
    assert "0: grass, " in said and f"like '{CONTROL}'" in said
    assert (out / "w.csv").read_text().startswith(f"row,column,a dog,grass,{CONTROL}\n")
    shown = ["--model", "shapes", "--prototypes", str(pictures)]
    assert main(["map", picture, *shown, "--method", "relevance", "--out", f"{out}/p.csv"]) == 0
    assert "red 100 %" in capsys.readouterr().out
    assert main(["where", picture, "--model", str(clips)]) == 2
    assert "Say what to look for" in capsys.readouterr().err
    assert main(["map", picture, *typed, "--prototypes", str(pictures)]) == 2


def test_words_that_are_names_of_other_things_overwrite_nothing(pictures: Path, tmp_path: Path) -> None:
    clip().save_pretrained(tmp_path / "clip")
    tokenizer().save_pretrained(tmp_path / "clip")
    words = ["file", "allow_pickle", "alike", "README", CONTROL]
    typed = ["--model", str(tmp_path / "clip"), "--words", ", ".join(words), f"--out={tmp_path}/w.npz"]
    assert main(["where", str(pictures / "red" / "0.png"), *typed]) == 0
    with np.load(tmp_path / "w.npz") as found:
        assert found["alike"].shape == (5,) and "cosine" in str(found["README"])
        maps = [name for name in found.files if found[name].shape == (4, 4)]
    assert maps == ["file", "allow_pickle", "alike (2)", "README (2)", CONTROL, f"{CONTROL} (2)"]
