"""explorer/pairs.py: what is like what in two pictures, against loops in float64."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image

from explorer import pairs, patching, stats
from explorer.cli.commands import main
from explorer.payload import unpack
from vit import Card, Trace, ViT, load, save, trace
from vit.objective import Objective
from vit.pictures import open_picture, preprocess

KINDS = ({}, {"num_registers": 2}, {"class_token": False, "pool": "mean"})
kinds = pytest.mark.parametrize("changes", KINDS, ids=str)


def two(**changes) -> tuple[Trace, Trace]:
    """Pictures of different sizes in front of one model."""
    model = randomised(ViT(tiny_config(**changes)))
    return trace(model, torch.randn(3, 12, 20)), trace(model, torch.randn(3, 16, 12))


def cosines(a: Trace, b: Trace, depth: int) -> np.ndarray:
    """Patch by patch, in float64."""
    x, y = (each.tokens[depth].double().numpy()[each.num_prefix_tokens :] for each in (a, b))
    return np.array([[u @ v / np.sqrt(u @ u) / np.sqrt(v @ v) for v in y] for u in x])


@kinds
def test_patches_are_compared_by_their_cosine_at_any_depth(changes) -> None:
    a, b = two(**changes)
    for depth in (0, 2, -1):
        found = pairs.similarity(a, b, depth)
        assert found.shape == (15, 12)
        np.testing.assert_allclose(found.numpy(), cosines(a, b, depth), atol=1e-6)
        np.testing.assert_array_equal(pairs.similarity(b, a, depth).numpy(), found.T.numpy())


def test_matches_chose_each_other() -> None:
    values = torch.rand(9, 7)
    found = pairs.matches(values)
    x = values.double().numpy()

    def chosen(i: int, j: int) -> bool:
        return all(x[i, j] >= x[i, k] for k in range(7)) and all(x[i, j] >= x[k, j] for k in range(9))

    expected = [(i, j) for i in range(9) for j in range(7) if chosen(i, j)]
    expected.sort(key=lambda pair: -x[pair])
    assert expected and found.pairs.tolist() == [list(pair) for pair in expected]
    assert found.cosine.tolist() == [values[pair].item() for pair in expected]
    assert len(expected) < 7, "not everything has a counterpart"


def test_a_picture_matches_itself_patch_by_patch() -> None:
    a, _ = two()
    found = pairs.matches(pairs.similarity(a, a, -1))
    assert sorted(found.pairs.tolist()) == [[i, i] for i in range(15)]
    torch.testing.assert_close(found.cosine, torch.ones(15))


def by_hand(a: Trace, b: Trace) -> tuple[np.ndarray, np.ndarray]:
    """The three directions of largest variance of all patches of both, by singular values in float64."""
    x = [each.tokens.double().numpy()[:, each.num_prefix_tokens :] for each in (a, b)]
    both = np.concatenate(x, axis=1)
    mean = both.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(both - mean).mean(axis=(1, 2), keepdims=True))
    rows = ((both - mean) / length).reshape(-1, both.shape[-1])
    basis = np.linalg.svd(rows, full_matrices=False)[2][:3]
    basis *= np.sign(basis[np.arange(3), np.abs(basis).argmax(axis=1)])[:, None]
    ours, theirs = ((part - mean) / length @ basis.T for part in x)
    return ours, theirs


@kinds
def test_one_basis_for_both_pictures(changes) -> None:
    a, b = two(**changes)
    expected = by_hand(a, b)
    for found, each, shape in zip(
        pairs.shared_pca(a, b), expected, ((4, 3, 5, 3), (4, 4, 3, 3)), strict=True
    ):
        assert found.shape == shape
        np.testing.assert_allclose(found.numpy().reshape(each.shape), each, atol=1e-4)


def test_one_picture_twice_has_its_own_basis() -> None:
    a, _ = two(num_registers=2)
    for found in pairs.shared_pca(a, a):
        torch.testing.assert_close(found, stats.patch_pca(a).scores, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_compared_says_why(monkeypatch) -> None:
    a, b = two()
    with pytest.raises(ValueError, match="one model has looked at both"):
        pairs.similarity(a, replace(b, tokens=b.tokens[:-1]), 0)
    monkeypatch.setattr(pairs, "MAX_PAIRS", 15 * 12 - 1)
    with pytest.raises(ValueError, match="15 patches times 12 are too many"):
        pairs.shared_pca(a, b)


def test_messages_hold_what_they_say() -> None:
    a, b = two(num_registers=2)
    head, about = unpack(pairs.pair_payload(a, b, Card("tiny")))
    assert about["grids"] == [[3, 5], [4, 3]] and about["sizes"] == [[12, 20], [16, 12]]
    ours, theirs = (each.numpy().reshape(-1, 3) for each in pairs.shared_pca(a, b))
    low, high = np.quantile(np.concatenate([ours, theirs]), (0.01, 0.99), axis=0)
    for name, scores in (("colours", ours), ("colours2", theirs)):
        expected = 255 * ((scores - low) / (high - low)).clip(0, 1)
        np.testing.assert_allclose(head[name].reshape(-1, 3), expected, atol=0.51)
    arrays, about = unpack(pairs.pair_depth_payload(a, b, 2))
    cosines = pairs.similarity(a, b, 2)
    assert about["depth"] == 2
    np.testing.assert_allclose(arrays["similarity"] / 127 - 1, cosines.numpy(), atol=0.5 / 127 + 1e-6)
    assert arrays["matches"].tolist() == pairs.matches(cosines).pairs.tolist()
    nearest = {"nearest": cosines.argmax(1), "nearest2": cosines.argmax(0)}
    assert {name: arrays[name].tolist() for name in nearest} == {k: v.tolist() for k, v in nearest.items()}


# ---- files ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures and a checkpoint "tiny" in a working directory."""
    monkeypatch.chdir(tmp_path)
    save("tiny", randomised(ViT(tiny_config(num_registers=1))), Card("tiny", tuple("abcdefg")))
    for name in ("one", "two"):
        pixels = np.random.default_rng(len(name + name[0])).integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels if name == "one" else pixels[::-1]).save(f"{name}.png")
    return tmp_path


def run(*words: str) -> int:
    return main([words[0], "one.png", "two.png", "--model", "tiny", *words[1:]])


def traces() -> tuple[ViT, Trace, Trace]:
    model, card = load("tiny")
    images = (preprocess(open_picture(f"{name}.png"), card) for name in ("one", "two"))
    a, b = (trace(model, image) for image in images)
    return model, a, b


def test_matches_as_files(folder: Path) -> None:
    outs = [word for ending in (".png", ".svg", ".npz", ".csv", ".md") for word in ("--out", f"m{ending}")]
    assert run("match", "--layer", "1", "--count", "3", *outs) == 0
    _, a, b = traces()
    cosines = pairs.similarity(a, b, 2)
    found = pairs.matches(cosines)
    with np.load("m.npz") as kept:
        np.testing.assert_allclose(kept["similarity"], cosines.numpy(), atol=1e-6)
        places = [[*divmod(i, 5), *divmod(j, 5)] for i, j in found.pairs[:3].tolist()]
        assert kept["pairs"].tolist() == places
        np.testing.assert_allclose(kept["pca_b"], pairs.shared_pca(a, b)[1].numpy(), atol=1e-5)
        assert "after layer 1" in str(kept["README"])
    rows = Path("m.csv").read_text().splitlines()
    assert rows[0] == "row,column,other_row,other_column,cosine" and len(rows) == 1 + len(places)
    assert run("match", "--least", "0.999999", "--out", "none.csv", "--out", "none.png") == 0
    assert Path("none.csv").read_text().splitlines()[1:] == [",,,,"]


@pytest.mark.parametrize("what", list(patching.WHAT))
def test_patching_as_files(folder: Path, what: str) -> None:
    outs = [word for ending in (".png", ".svg", ".npz", ".csv", ".md") for word in ("--out", f"p{ending}")]
    assert run("patch", "--what", what, "--target", "c", "--contrast", "e", *outs) == 0
    model, a, b = traces()
    found = patching.patching(a, b, model, what, objective=Objective(2, 4))
    with np.load("p.npz") as kept:
        np.testing.assert_allclose(kept["effects"], found.effects.numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(kept["together"], found.together.numpy(), rtol=1e-3, atol=1e-5)
        assert "logit of c minus that of e" in str(kept["README"])
    assert len(Path("p.csv").read_text().splitlines()) == 1 + 3 * ((4 if what == "heads" else 17) + 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("match", "--layer", "3"), "There is no layer 3"),
        (("patch", "--what", "mlp", "--query", "cls"), "--query means nothing to --what mlp"),
        (("patch", "--query", "9,9"), "There is no patch 9,9"),
        (("patch", "--target", "z"), "is no class of tiny"),
        (("match", "--out", "x.gif"), "match cannot write .gif"),
    ],
)
def test_a_mistake_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture, words, said: str) -> None:
    assert run(*words) == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told


@pytest.mark.parametrize("command", ["match", "patch"])
def test_a_model_of_clips_is_refused(folder: Path, capsys: pytest.CaptureFixture, command: str) -> None:
    save("tiny", randomised(ViT(tiny_config(num_frames=6, tubelet=2))), Card("tiny", tuple("abcdefg")))
    assert run(command) == 2
    assert "by a model of pictures: this one looks at clips." in capsys.readouterr().err
