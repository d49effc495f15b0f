"""vit/checkpoint.py: what is saved comes back; what is broken is refused, naming file and field."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image
from safetensors.torch import load_file, save_file

from vit import Card, CheckpointError, ViT, load, save
from vit import checkpoint as module
from vit.checkpoint import (
    list_snapshots,
    load_snapshot,
    save_snapshot,
    write_atomically,
)
from vit.library import BUNDLED, folder_of, list_checkpoints, resolve
from vit.pictures import preprocess

CARD = Card(
    "tiny", tuple("abcdefg"), mean=(0.1, 0.2, 0.3), image_size=(16, 20), accuracy=0.5,
    command="python train.py tiny",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny_vit: ViT) -> Path:
    save(tmp_path / "tiny", tiny_vit, CARD, dtype=torch.float32)
    return tmp_path / "tiny"


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(name: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    return message


def test_what_is_saved_comes_back(folder: Path, tiny_vit: ViT) -> None:
    model, card = load(folder)
    assert card == CARD and model.config == tiny_vit.config
    assert all(torch.equal(x, tiny_vit.state_dict()[name]) for name, x in model.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_card_that_names_no_size_means_the_models(tmp_path: Path, tiny_vit: ViT) -> None:
    save(tmp_path, tiny_vit, Card("tiny"))
    assert load(tmp_path)[1] == Card("tiny", image_size=tiny_vit.config.image_size)
    with pytest.raises(ValueError, match="names no image_size"):
        preprocess(Image.new("RGB", (9, 9)), Card("tiny"))


def test_half_precision_is_the_default_and_comes_back_as_float32(tmp_path: Path, tiny_vit: ViT) -> None:
    save(tmp_path, tiny_vit, CARD)
    assert load_file(tmp_path / "model.safetensors")["head.weight"].dtype == torch.float16
    model, _ = load(tmp_path)
    assert model.head.weight.dtype == torch.float32
    torch.testing.assert_close(model.head.weight, tiny_vit.head.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("moment", range(1, 4))
def test_a_crash_while_saving_leaves_the_old_checkpoint_or_the_new(
    folder: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies right before its n-th rename; another architecture makes a mixture fail to load."""
    renames, really_replace = 0, os.replace

    def replace(source: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == moment:
            raise KeyboardInterrupt
        really_replace(source, target)

    other = randomised(ViT(tiny_config(depth=2)))
    monkeypatch.setattr(module.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(folder, other, CARD)
    monkeypatch.setattr(module.os, "replace", really_replace)
    model, _ = load(folder)
    assert model.config.depth == (3 if moment < 3 else 2)
    save(folder, other, CARD)
    assert load(folder)[0].config.depth == 2


def test_a_crash_at_the_end_of_the_first_save_leaves_a_checkpoint(folder: Path, tiny_vit: ViT) -> None:
    (folder / "config.json").rename(folder / "config.next.json")
    assert load(folder)[0].config == tiny_vit.config and list_checkpoints(folder.parent) == ["tiny"]


def test_weights_and_config_that_are_read_while_a_run_saves_belong_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run saves between the two reads, another architecture at that: both are read once more."""
    really_read, saved = module.read_tensors, []

    def read(path: Path, *bounds: int):
        tensors = really_read(path, *bounds)
        if not saved:
            saved.append(True)
            save(folder, randomised(ViT(tiny_config(depth=2))), CARD)
        return tensors

    monkeypatch.setattr(module, "read_tensors", read)
    assert load(folder)[0].config.depth == 2


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({}))
    assert "convert it to safetensors" in refusal(path)


def test_every_cut_of_the_weights_is_one_sentence(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "model.safetensors" in refusal(folder)


def test_missing_weights_are_one_sentence(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda t: t.pop("blocks.1.norm1.bias"), "no tensor 'blocks.1.norm1.bias'"),
        (lambda t: t.update(extra=torch.zeros(2)), "a tensor 'extra' that its config does not ask for"),
        (lambda t: t.update({"head.bias": torch.zeros(3)}), "'head.bias' has the shape [3]"),
        (lambda t: t["norm.weight"].fill_(float("nan")), "'norm.weight' holds values"),
        (lambda t: t.update({"head.bias": torch.zeros(7, dtype=torch.int64)}), "'head.bias' holds values"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_named(folder: Path, edit, words: str) -> None:
    edit_weights(folder, edit)
    message = refusal(folder)
    assert words in message and "model.safetensors" in message


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(version=99), "version 99, newer than 1"),
        (dict(version="x"), "version 'x'"),
        (dict(colour="red"), "unknown field 'colour'"),
        (dict(model=dict(heads=3)), "unknown field 'heads'"),
        (dict(model=dict(embed_dim="32")), "embed_dim"),
        (dict(model=dict(depth=10**9)), "depth must lie between 0 and 200"),
        (dict(model=dict(depth=True)), "depth must be"),
        (dict(model=dict(image_size=[4 * 10**6, 4 * 10**6])), "patches are more than"),
        (dict(image_size=[13, 20]), "do not divide an image of 13 x 20 pixels"),
        (dict(image_size=[4 * 10**6, 4 * 10**6]), "patches are more than"),
        (dict(model=dict(embed_dim=32768, mlp_ratio=64.0)), "parameters are more than"),
        (dict(class_names=["a", "b"]), "2 class_names for a model of 7 classes"),
        (dict(class_names=[1, 2, 3, 4, 5, 6, 7]), "class_names must be"),
        (dict(accuracy="high"), "accuracy must be"),
        (dict(interpolation="foo"), "interpolation must be one of"),
        (dict(mean=[0.5] * 7), "mean must be three numbers"),
        (dict(mean=[0.5, 0.5, float("nan")]), "mean must be three numbers"),
        (dict(std=[0.5, 0.5, 0]), "std must be three numbers"),
        (dict(crop_pct=-3), "crop_pct must lie between"),
        (dict(crop_pct=50), "crop_pct must lie between"),
    ],
)
def test_wrong_fields_are_named(folder: Path, changes: dict, words: str) -> None:
    edit_config(folder, **changes)
    message = refusal(folder)
    assert words in message and "config.json" in message


def test_a_config_that_fills_the_memory_is_not_read(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("vit.checkpoint.MAX_JSON", 100)
    assert "that describes no model" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_one_sentence(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def test_checkpoints_are_listed_with_the_richest_first(tmp_path: Path, tiny_vit: ViT) -> None:
    for name in ("shapes", "another", "imagenette", "cifar10"):
        save(tmp_path / name, tiny_vit, CARD)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "broken", tiny_vit, CARD)
    (tmp_path / "broken" / "config.json").write_text("{")
    save(tmp_path / "half", tiny_vit, CARD)
    (tmp_path / "half" / "config.json").unlink()
    assert list_checkpoints(tmp_path) == ["imagenette", "cifar10", "shapes", "another"]


def test_snapshots_carry_their_moment_and_look_the_same(tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config(layer_scale=0.1)), std=0.05)
    for step in (300, 20):
        save_snapshot(tmp_path, model, CARD, step, {"epoch": step / 10, "accuracy": 0.25})
    first, second = list_snapshots(tmp_path)
    assert (first.step, second.step, second.metrics["epoch"]) == (20, 300, 30)
    then, card = load_snapshot(second.path)
    assert card == CARD and then.config == model.config
    for name, x in model.state_dict().items():
        y = then.state_dict()[name]
        noise = float((x - y).square().mean().sqrt() / x.square().mean().sqrt())
        assert noise <= (0.12 if x.ndim > 1 else 1e-3), name  # see tests/test_codec.py


def test_a_stray_file_among_snapshots_is_named(tmp_path: Path, tiny_vit: ViT) -> None:
    path = save_snapshot(tmp_path, tiny_vit, CARD, 1, {})
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not say when"):
        list_snapshots(tmp_path)
    with pytest.raises(CheckpointError, match="does not carry its config"):
        load_snapshot(path)


@pytest.mark.parametrize("name, text", [("config", "[]"), ("metrics", "[]"), ("metrics", '{"loss": "low"}')])
@pytest.mark.parametrize("deep", [False, True])
def test_a_snapshot_that_does_not_describe_itself_is_named(
    tmp_path: Path, tiny_vit: ViT, name: str, text: str, deep: bool
) -> None:
    path = save_snapshot(tmp_path, tiny_vit, CARD, 1, {})
    about = module.read_header(path) | {name: "[" * 100_000 if deep else text}
    save_file(load_file(path), path, about)
    with pytest.raises(CheckpointError, match=f"The {name} in .*step_0000001"):
        load_snapshot(path) if name == "config" else list_snapshots(tmp_path)


def save_in_8_bit(folder: Path, model: ViT) -> Path:
    """A snapshot as older versions wrote it: matrices in 8 bit, with a scale per row."""
    path = save_snapshot(folder, model, CARD, 1, {})
    tensors = {}
    for name, x in model.state_dict().items():
        if x.ndim == 2:
            scale = x.abs().amax(dim=1, keepdim=True) / 127
            tensors |= {name: (x / scale).round().to(torch.int8), name + ".scale": scale}
        else:
            tensors[name] = x.half()
    save_file(tensors, path, module.read_header(path))
    return path


def test_a_snapshot_of_an_older_version_still_loads(tmp_path: Path, tiny_vit: ViT) -> None:
    then, _ = load_snapshot(save_in_8_bit(tmp_path, tiny_vit))
    for name, x in tiny_vit.state_dict().items():
        torch.testing.assert_close(then.state_dict()[name], x, rtol=2e-3, atol=float(x.abs().max()) / 200)


@pytest.mark.parametrize(
    "name, x, words",
    [
        ("head.weight.scale", torch.ones(4, 3), "one number per row"),
        ("head.weight.scale", torch.ones(7, 1, 1), "one number per row"),
        ("head.weight.scale", torch.ones(7, 1, dtype=torch.float16), "scales no matrix"),
        ("head.weight", torch.ones(7, 32), "scales no matrix"),
        ("head.weight", torch.ones(7, 32, 1, dtype=torch.int8), "scales no matrix"),
        ("other.scale", torch.ones(7, 1), "scales no matrix"),
    ],
)
def test_a_snapshot_with_a_wrong_scale_is_named(
    tmp_path: Path, tiny_vit: ViT, name: str, x: torch.Tensor, words: str
) -> None:
    path = save_in_8_bit(tmp_path, tiny_vit)
    save_file(load_file(path) | {name: x}, path, module.read_header(path))
    with pytest.raises(CheckpointError, match=words):
        load_snapshot(path)


def test_a_bare_word_is_a_bundled_one_and_a_path_is_a_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = randomised(ViT(tiny_config()))
    save("shapes", own, CARD)
    assert load("shapes")[1].name == "shapes" and folder_of("shapes").parent == BUNDLED
    for path in ("./shapes", Path("shapes"), str(tmp_path / "shapes"), "shapes/model.safetensors"):
        assert load(path)[1] == CARD and folder_of(path).resolve() == tmp_path / "shapes"


def test_a_file_that_is_not_what_its_folder_loads_is_refused(folder: Path, tiny_vit: ViT) -> None:
    """`best.safetensors` beside model.safetensors is another model: it is not the folder's."""
    best = randomised(ViT(tiny_config(depth=2)))
    save(folder.parent / "best", best, CARD)
    shutil.copy(folder.parent / "best" / "model.safetensors", folder / "best.safetensors")
    (folder / "README.md").write_text("# tiny")
    for name in ("best.safetensors", "README.md", "config.json"):
        assert f"{name} is no model.safetensors and no snapshot" in refusal(folder / name)
        assert folder_of(str(folder / name)) is None
    assert load(folder / "model.safetensors")[0].config == tiny_vit.config
    taken = save_snapshot(folder, best, CARD, 12, {})
    assert load(taken)[0].config == best.config and resolve(taken).weights == taken


@pytest.mark.parametrize("held", [False, True], ids=["read", "at hand"])
def test_a_snapshot_is_bounded_as_its_model_is(held: bool, folder: Path, tiny_vit: ViT) -> None:
    """What is packed in few bytes takes as much memory as anything else."""
    still = ViT(tiny_config())
    for parameter in still.parameters():
        parameter.detach().zero_()
    taken = save_snapshot(folder, still, CARD, 12, {})
    size = 4 * sum(x.numel() for x in still.state_dict().values())
    assert taken.stat().st_size < size / 4
    os.utime(taken, (1, 1))  # not written just now
    if held:
        load(taken)
    with pytest.raises(CheckpointError, match="choose a smaller model"):
        load(taken, max_bytes=size - 1)
    assert load(taken, max_bytes=size)


def test_a_home_folder_is_found_by_its_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/tiny")[1] == CARD and load(Path("~/tiny"))[1] == CARD
    assert (
        resolve("~/tiny").weights
        == folder / "model.safetensors"
        == resolve("~/tiny/model.safetensors").weights
    )
    assert "There is no folder '~/none' here" in refusal("~/none")


def test_a_path_is_never_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vit.library.fetch", None)
    assert "There is no folder 'facebook/dino-vits8' here" in refusal(Path("facebook/dino-vits8"))
    assert "There is no folder './dino' here" in refusal("./dino")
    there = resolve("facebook/dino-vits8@main")
    assert (there.name, there.folder, there.weights) == ("facebook/dino-vits8@main", None, None)


def test_the_hub_is_asked_where_its_prefix_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("owner/name", randomised(ViT(tiny_config())), CARD)
    assert resolve("owner/name").folder == Path("owner/name")
    assert resolve("hf-hub:owner/name").folder is None and resolve("hf-hub:owner/name").name == "owner/name"


def test_weights_of_another_save_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name, randomised(ViT(tiny_config())), CARD)
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a")
    assert "are of two saves: copy both from the same folder." in refusal(tmp_path / "a")


@pytest.mark.parametrize("value, dtype", [(1e6, torch.float16), (float("nan"), torch.float32)])
def test_what_could_not_be_loaded_is_not_saved(folder: Path, tiny_vit: ViT, value: float, dtype) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    tiny_vit.head.weight.data[0, 0] = value
    with pytest.raises(ValueError, match=r"holds values that are no finite float"):
        save(folder, tiny_vit, CARD, dtype=dtype)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_only_a_model_from_elsewhere_has_a_note() -> None:
    told = Card("a", source="Loaded without its head.")
    assert told.note == told.source and replace(told, command="python train.py cifar10").note == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.csv"])
def test_a_pipe_or_a_device_in_a_checkpoint_keeps_nobody_waiting(folder: Path, name: str) -> None:
    for put in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        (folder / name).unlink(missing_ok=True)
        put(folder / name)
        if name == "history.csv":
            assert module.read_history(folder) == []
        else:
            assert refusal(folder).endswith(".")
            with pytest.raises(CheckpointError, match=r"missing|cut short"):
                module.load_folder(folder)


def test_a_history_with_an_endless_cell_is_one_sentence(folder: Path) -> None:
    (folder / "history.csv").write_text("step,loss\n1," + "9" * 1_000_000 + "\n")
    with pytest.raises(CheckpointError, match="a row that is not all numbers"):
        module.read_history(folder)
