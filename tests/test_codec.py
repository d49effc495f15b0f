"""vit/codec.py: moments of training in three to four bits per weight; the eye cannot tell."""

import os
import zlib
from pathlib import Path

import pytest
import torch
from conftest import randomised, tiny_config

from vit import Card, ViT, checkpoint, codec, load, trace
from vit.checkpoint import list_snapshots, load_snapshot, save_snapshot
from vit.library import BUNDLED
from vit.pictures import preprocess
from vit.shapes import shapes_sample

CARD = Card("tiny", tuple("abcdefg"), image_size=(12, 20))


@pytest.mark.parametrize("shape", [(7, 32), (1, 16, 32), (32, 3, 4, 4), (1, 1, 32)])
def test_a_tensor_comes_back_to_within_a_step(shape: tuple[int, ...]) -> None:
    x, before = torch.randn(shape), torch.randn(shape)
    for base in (None, before):
        packed, width = codec.encode(x, base)
        back = codec.decode(packed, width, x.shape, base)
        rows = codec.as_rows(back - x).abs().amax(dim=1, keepdim=True)
        assert (rows <= codec.DEAD * width * 1.001).all() and back.shape == x.shape


def test_what_hardly_moves_takes_hardly_any_room() -> None:
    x = torch.randn(256, 256)
    base = codec.decode(*codec.encode(x, None), x.shape, None)
    packed, _ = codec.encode(x + 0.005 * torch.randn_like(x), base)
    assert 8 * len(packed) < 0.1 * x.numel() and 8 * len(codec.encode(x, None)[0]) < 4 * x.numel()


def test_noise_does_not_gather_from_moment_to_moment() -> None:
    x, base = torch.randn(64, 64), None
    for _ in range(20):
        x = x + 0.3 * torch.randn_like(x)
        base = codec.decode(*codec.encode(x, base), x.shape, base)
        assert float((base - x).square().mean().sqrt() / x.square().mean().sqrt()) < 0.12


@pytest.mark.parametrize(
    "packed, words",
    [(zlib.compress(b"\0" * 10**8), "12 weights"), (zlib.compress(b"\0\0"), "2 codes"), (b"no", "unpacked")],
)
def test_codes_that_are_not_of_this_shape(packed: bytes, words: str) -> None:
    """A hundred kilobytes that would unpack to a hundred megabytes do not."""
    codes = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    with pytest.raises(ValueError, match=words):
        codec.decode(codes, torch.ones(3, 1), torch.Size((3, 4)), None)


def test_the_eye_cannot_tell_a_snapshot_from_its_weights(tmp_path: Path) -> None:
    """Of a trained model, the worst case: all has moved. Attention of [CLS], beside each map's maximum."""
    model, card = load("shapes")
    begin = randomised(ViT(model.config), std=0.05)
    save_snapshot(tmp_path, begin, card, 0, {})
    then, _ = load_snapshot(save_snapshot(tmp_path, model, card, 100, {}))
    off, maps = [], []
    for number in range(8):
        image = preprocess(shapes_sample(3, number)[0], card)
        exact, kept = trace(model, image), trace(then, image)
        said = card.probabilities(exact.logits) - card.probabilities(kept.logits)
        off.append(float(said.abs().max()))
        rows, other = exact.attn[:, :, 0], kept.attn[:, :, 0]
        maps.append(float(((rows - other).abs() / rows.amax(dim=-1, keepdim=True)).mean()))
    assert max(maps) < 0.01 and max(off) < 0.1
    size = (tmp_path / "snapshots" / "step_0000000.safetensors").stat().st_size
    assert 8 * size < 4.5 * sum(x.numel() for x in model.state_dict().values())


def test_a_chain_of_moments_ends_in_each_of_them(tmp_path: Path) -> None:
    """Written one after the other, loaded in any order; a moment whose base is gone says so."""
    models = [randomised(ViT(tiny_config()), std=0.05 * (i + 1)) for i in range(4)]
    for step, model in enumerate(models):
        save_snapshot(tmp_path, model, CARD, 10 * step, {})
    for step in (3, 0, 2, 1):
        then, _ = load_snapshot(list_snapshots(tmp_path)[step].path)
        for name, x in models[step].state_dict().items():
            scale = float(x.square().mean().sqrt())
            assert float((then.state_dict()[name] - x).square().mean().sqrt()) <= 0.12 * scale, name
    for parameter in then.parameters():  # what is loaded is one's own
        parameter.zero_()
    assert any(x.any() for x in load_snapshot(list_snapshots(tmp_path)[1].path)[0].state_dict().values())
    paths = [snapshot.path for snapshot in list_snapshots(tmp_path)]
    paths[0].unlink()
    with pytest.raises(ValueError, match=r"step_0000000.safetensors is missing"):
        load_snapshot(paths[3])
    save_snapshot(tmp_path, models[3], CARD, 0, {})
    with pytest.raises(ValueError, match=r"0000010.safetensors is the difference to another step_0000000"):
        load_snapshot(paths[3])
    paths[1].unlink()
    save_snapshot(tmp_path, models[3], CARD, 10, {})
    with pytest.raises(ValueError, match=r"0000020.safetensors is the difference to another step_0000010"):
        load_snapshot(paths[3])


def test_a_timeline_decodes_each_moment_once(tmp_path: Path, monkeypatch) -> None:
    """Each is the difference to the one before: from the first on for each would be many times as much."""
    for step in range(3 * checkpoint.MOST_RECENT):
        save_snapshot(tmp_path, randomised(ViT(tiny_config()), std=0.05 * (step + 1)), CARD, step, {})
    paths, decoded = [snapshot.path for snapshot in list_snapshots(tmp_path)], []
    decode = checkpoint.decode
    monkeypatch.setattr(checkpoint, "decode", lambda path, *more: decoded.append(path) or decode(path, *more))
    checkpoint.RECENT.clear()
    for path in paths:
        os.utime(path, (1, 1))  # not written just now
    for _ in range(2):
        decoded.clear()
        for path in paths:
            load_snapshot(path)
        assert decoded == paths and len(checkpoint.RECENT) == checkpoint.MOST_RECENT
    load_snapshot(paths[-1])
    assert decoded == paths, "it was at hand"


def test_what_a_file_says_of_itself_is_read_again_when_it_was_written_again(tmp_path: Path) -> None:
    def accuracies() -> list[float]:
        return [snapshot.metrics["accuracy"] for snapshot in list_snapshots(tmp_path)]

    model = randomised(ViT(tiny_config()))
    for accuracy in (0.25, 0.75):
        path = save_snapshot(tmp_path, model, CARD, 0, {"accuracy": accuracy})
        os.utime(path, (2**32, 2**32))  # within one tick of the clock, and of the same size
        assert accuracies() == accuracies() == [accuracy]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="cut short"):
        list_snapshots(tmp_path)


def test_another_model_or_a_damaged_moment_begins_a_chain_of_its_own(tmp_path: Path) -> None:
    first = save_snapshot(tmp_path, randomised(ViT(tiny_config())), CARD, 1, {})
    deeper = randomised(ViT(tiny_config(depth=4)))
    assert load_snapshot(save_snapshot(tmp_path, deeper, CARD, 2, {}))[0].config.depth == 4
    first.unlink()
    (tmp_path / "snapshots" / "step_0000002.safetensors").write_bytes(b"cut")
    assert load_snapshot(save_snapshot(tmp_path, deeper, CARD, 3, {}))[0].config.depth == 4


@pytest.mark.parametrize("name", ["shapes", "cifar10", "imagenette", "photos", "moves"])
def test_bundled_moments_load_and_are_small(name: str) -> None:
    snapshots = list_snapshots(BUNDLED / name)
    assert load_snapshot(snapshots[-1].path)[0].config.depth == load(name)[0].config.depth
    assert max(snapshot.path.stat().st_size for snapshot in snapshots) < 1.5e6
