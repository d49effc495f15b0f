"""`python -m explorer` on clips: files hold what the API returns, frames stand side by side."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clip_config, randomised, tiny_config
from PIL import Image

from explorer import objects
from explorer.cli import commands as cli
from explorer.cli.sources import clips_with_masks
from explorer.maps import attention
from explorer.roles import head_figures
from explorer.subject import subject_of
from vit import Card, MaskPatches, ViT, load, save, trace
from vit.clips import as_clip, preprocess_clip, sampled
from vit.moves import MOVES_CLASSES, moves_sample

GREYS = np.arange(5, 245, 15)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model of clips, (4, 3, 5) patches of 8 frames, and a GIF of 16."""
    monkeypatch.chdir(tmp_path)
    save("tiny", randomised(ViT(clip_config(num_classes=10))), Card("tiny", MOVES_CLASSES))
    noise = np.random.default_rng(0).integers(0, 99, (16, 12, 20, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame + np.uint8(grey // 2)) for frame, grey in zip(noise, GREYS)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save("still.png")
    return tmp_path


def run(*words: str) -> int:
    return cli.main([words[0], "--model", "tiny", *words[1:]])


def test_a_map_of_a_clip_is_the_methods_map(folder: Path) -> None:
    asked = ("--method", "attention", "--query", "2,1,4", "--layer", "0", "--hide", "0,0,1 3,2,0")
    assert run("map", "a.gif", *asked, "--out", "m.npz", "--out", "m.png", "--out", "m.csv") == 0
    model, card = load("tiny")
    clip = preprocess_clip(sampled(as_clip("a.gif"), 8), card, (12, 20))
    traced = trace(model, clip, edits=[MaskPatches((1, 3 * 15 + 10), 1)])
    wanted = attention(traced, query=1 + 2 * 15 + 9, layer=0).numpy()
    with np.load("m.npz") as file:
        np.testing.assert_allclose(file["attention"], wanted, atol=1e-6)
        assert "attention (t, h, w)" in str(file["README"])
    rows = list(csv.DictReader(Path("m.csv").read_text().splitlines()))
    assert [rows[38][name] for name in ("time", "row", "column")] == ["2", "1", "3"]
    assert float(rows[38]["attention"]) == pytest.approx(float(wanted[2, 1, 3]), abs=1e-6)
    assert Image.open("m.png").width > 400


def test_frames_stand_side_by_side(folder: Path) -> None:
    model, card = load("tiny")
    clip = preprocess_clip(sampled(as_clip("a.gif"), 8), card, (12, 20))
    subject = subject_of("a", clip, model, card)
    assert subject.picture.shape == (12, 4 * 20, 3)
    for t in range(4):
        frame = subject_of("f", clip[2 * t], ViT(tiny_config()).eval(), card).picture
        assert np.array_equal(subject.picture[:, 20 * t : 20 * t + 20], frame)
    maps = torch.randn(2, 4, 3, 5)
    assert np.array_equal(subject.sheet(maps)[1, 2, 5 * 3 + 4], maps[1, 3, 2, 4].numpy())
    assert subject.patch(1 + 2 * 15 + 9) == (1, 2 * 5 + 4) and subject.patch(0) is None


@pytest.mark.parametrize("command", ["grid", "stats", "ledger"])
def test_other_figures_of_a_clip(folder: Path, command: str) -> None:
    assert run(command, "a.gif", "--out", "m.csv", "--out", "m.png") == 0
    assert Path("m.csv").read_text().count("\n") > 3


def test_a_time_is_hidden_and_a_place_at_every_time(folder: Path, capsys) -> None:
    model, card = load("tiny")
    clip = preprocess_clip(sampled(as_clip("a.gif"), 8), card, (12, 20))
    for said, patches in (
        ("time 2", range(30, 45)),
        ("1,3", (8, 23, 38, 53)),
        ("Time0 3,0,1", (*range(15), 46)),
    ):
        asked = ("--method", "attention", "--query", "cls", "--hide", said, "--out", "h.npz")
        assert run("map", "a.gif", *asked) == 0
        wanted = attention(trace(model, clip, edits=[MaskPatches(tuple(patches), 1)]), query=0).numpy()
        with np.load("h.npz") as file:
            np.testing.assert_allclose(file["attention"], wanted, atol=1e-6)
    for said, why in (("time 4", "There is no time 4"), ("3,0", "rows from 0 to 2"), ("cls", "or time TIME"),
                      ("time 0 time 1 time 2 time 3", "at least one")):  # fmt: skip
        assert run("map", "a.gif", "--hide", said) == 2
        assert why in capsys.readouterr().err
    assert run("map", "a.gif", "--method", "attention", "--hide", "time 2") == 0
    assert Path("a-time-2-hidden-map.png").is_file()


def test_a_folder_of_frames_is_a_clip(folder: Path, capsys) -> None:
    for place in ("walk", "set/one", "set/two"):
        Path(place).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (20, 12), (20 * i, 0, 0)).save(f"{place}/{i}.png")
    Path("set/three.gif").write_bytes(Path("a.gif").read_bytes())
    assert as_clip("walk").frames[:, 0, 0, 0].tolist() == [20 * i for i in range(12)], "10 comes after 9"
    assert run("map", "walk", "--method", "attention", "--out", "w.npz") == 0
    model, card = load("tiny")
    clip = preprocess_clip(sampled(as_clip("walk"), 8), card, (12, 20))
    with np.load("w.npz") as file:
        np.testing.assert_allclose(file["attention"], attention(trace(model, clip)).numpy(), atol=1e-6)
    assert run("map", "set", "--method", "attention", "--out", "found/") == 0
    assert sorted(path.name for path in Path("found").iterdir()) == [
        "one-map.png",
        "three-map.png",
        "two-map.png",
    ]
    Image.new("RGB", (9, 12)).save("walk/13.png")
    assert run("map", "walk") != 0 and "one size" in capsys.readouterr().err


def test_maps_of_clips_are_raced(folder: Path, capsys) -> None:
    few = ("--method", "attention", "--points", "3", "--mode", "grey")
    assert run("faithfulness", "a.gif", *few, "--out", "one.csv") == 0
    assert run("faithfulness", "--images", "2", *few, "--out", "two.csv") == 0
    assert "attention" in Path("two.csv").read_text()
    assert run("faithfulness", "--data", "shapes", *few) == 2
    assert "reads clips: name a folder of clips, or --data moves" in capsys.readouterr().err


def test_a_picture_stands_still_and_what_is_wrong_is_one_sentence(folder: Path, capsys) -> None:
    assert run("map", "still.png", "--out", "s.npz") == 0
    assert run("map", "a.gif", "--query", "1,2") == 2
    assert "write TIME,ROW,COLUMN or cls" in capsys.readouterr().err
    assert run("map", "a.gif", "--query", "4,0,0") == 2
    assert (
        "There is no patch 4,0,0: this grid has times from 0 to 3, rows from 0 to 2"
        in capsys.readouterr().err
    )
    Path("broken.gif").write_bytes(b"GIF89a")
    assert run("map", "broken.gif") != 0 and "Traceback" not in capsys.readouterr().err


def test_objects_are_looked_for_in_space_and_time(folder: Path) -> None:
    assert run("objects", "--images", "3", "--out", "o.csv") == 0
    model, card = load("tiny")
    samples = [*clips_with_masks(card, (12, 20), 3)]
    found = objects.measure(model, [(sample.image, sample.mask) for sample in samples])
    assert found.heads["auc"].shape == (found.pictures, 3, 4) and found.pictures + found.left_out == 3
    maps = objects.head_maps(model, torch.stack([sample.image for sample in samples]))
    assert maps.shape == (3, 3, 4, 4, 3, 5)
    one = trace(model, samples[1].image)
    torch.testing.assert_close(maps[1, 2, 3], attention(one, layer=2, head=3), rtol=1e-4, atol=1e-6)
    masks = moves_sample(1, 1)[2]  # of 64 x 64 pixels
    share = torch.from_numpy(masks).float().mean()
    assert samples[1].mask.shape == (8, 12, 20) and abs(samples[1].mask.float().mean() - share) < 0.02


def test_heads_of_a_model_of_clips_have_no_names(folder: Path, capsys) -> None:
    assert run("roles", "--images", "2") == 2
    assert "a clip has no names" in capsys.readouterr().err
    model, _ = load("tiny")
    with pytest.raises(ValueError, match="a clip has no names"):
        head_figures(trace(model, torch.randn(8, 3, 12, 20)), model)
