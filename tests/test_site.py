"""The page without a server: the graph, the engine in JavaScript against Python's numbers, the folder."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CI, randomised, tiny_config
from PIL import Image

from explorer.ledger import ledger
from explorer.maps import rollout_all
from explorer.payload import embeddings_payload, head_payload, layer_payload
from explorer.site.folder import described
from explorer.site.graph import export_graph, has_ledger, pack_weights
from vit import ViT, load, trace
from vit.card import Card
from vit.pictures import preprocess, to_pixels
from vit.trace import MaskPatches, ZeroHeads

ROOT = Path(__file__).resolve().parent.parent
CARD = Card("tiny", class_names=tuple("abcdefg"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def write(folder: Path, name: str, array) -> None:
    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())


def write_trace(folder: Path, name: str, model: ViT, card: Card) -> None:
    """What a model did, and what Python tells the viewer of it."""
    t = trace(model, torch.rand(3, *model.config.image_size))
    for field in ("logits", "attn", "tokens"):
        write(folder, f"{name}.{field}", getattr(t, field).numpy())
    about = described(model, card, model.config.image_size)
    (folder / f"{name}.about.json").write_text(json.dumps(about))
    (folder / f"{name}.head").write_bytes(head_payload(t, card, model))
    (folder / f"{name}.embeddings").write_bytes(embeddings_payload(t, model))
    rollouts = rollout_all(t)
    for layer in range(model.config.depth):
        (folder / f"{name}.layer{layer}").write_bytes(layer_payload(t, layer, rollout=rollouts[layer + 1]))


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(3)
    listed = []
    for width, height, size, crop, interpolation in [
        (61, 45, (24, 32), 1.0, "bicubic"),
        (40, 90, (32, 32), 0.875, "bicubic"),
        (90, 31, (48, 32), 0.9, "bilinear"),
        (33, 34, (64, 64), 1.0, "lanczos"),
        (50, 41, (24, 24), 0.9, "nearest"),
    ]:
        name = f"{interpolation}-{width}"
        smooth = np.repeat(np.repeat(rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)), 4, 0), 4, 1)
        picture = Image.fromarray(smooth[:height, :width].astype(np.uint8))
        pixels = to_pixels(picture, size, crop, interpolation)
        write(folder, f"{name}.rgba", np.asarray(picture.convert("RGBA")))
        write(folder, f"{name}.pixels", pixels.permute(1, 2, 0).numpy())
        card = Card("x", mean=CARD.mean, std=CARD.std, crop_pct=crop, interpolation=interpolation)
        write(folder, f"{name}.image", preprocess(picture, card, size).numpy())
        about = dict(name=name, width=width, height=height, size=size, crop=crop, interpolation=interpolation)
        listed.append(about)
    (folder / "pictures.json").write_text(json.dumps(listed))


@pytest.fixture(scope="module")
def graph_of_tiny():
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config()))
    return model, *export_graph(model, model.config.image_size)


def run(graph: bytes, weights, model: ViT, folder: Path, **inputs) -> list[np.ndarray]:
    """What ONNX Runtime makes of the graph with a model's parameters."""
    import onnxruntime

    content = b"".join(weight.of(model.state_dict()).numpy().tobytes() for weight in weights)
    (folder / "weights").write_bytes(content)
    (folder / "graph.onnx").write_bytes(graph)
    session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    config = model.config
    tokens = config.num_prefix_tokens + config.num_patches
    gate = np.ones((config.depth, config.num_heads), np.float32)
    given = {"hidden": np.zeros(tokens, np.float32), "gate": gate}
    if has_ledger(model):
        given["classes"] = np.zeros(config.num_classes, np.float32)
    return session.run(None, given | inputs)


@pytest.mark.parametrize("pool", ["cls", "mean", "attention"])
def test_the_graph_does_what_the_model_does_under_interventions(pool: str, tmp_path: Path) -> None:
    config = tiny_config(num_registers=1, pool=pool)
    model = randomised(ViT(config))
    graph, weights = export_graph(model, config.image_size)
    image = torch.rand(3, *config.image_size)
    hidden, gate = np.zeros(2 + 15, np.float32), np.ones((3, 4), np.float32)
    hidden[2 + np.array([3, 7])] = -np.inf
    gate[1, 2] = 0
    ours = run(graph, weights, model, tmp_path, image=image[None].numpy(), hidden=hidden, gate=gate)
    theirs = trace(model, image, edits=(MaskPatches((3, 7), 2), ZeroHeads(((1, 2),))))
    for a, b in zip(ours, (theirs.logits, theirs.attn, theirs.tokens)):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "num_registers": 2}, {"distillation": True}])
def test_the_graphs_ledger_is_pythons(changes: dict, tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config(**changes)))
    graph, weights = export_graph(model, model.config.image_size)
    image, classes = torch.rand(3, 12, 20), np.eye(7, dtype=np.float32)[4]
    ours = run(graph, weights, model, tmp_path, image=image[None].numpy(), classes=classes)[3:]
    theirs = ledger(trace(model, image), model, 4)
    for a, b in zip(ours, (theirs.heads, theirs.mlp, theirs.embed, torch.tensor(theirs.bias))):
        np.testing.assert_allclose(a, b.numpy(), atol=5e-5)


def test_other_weights_in_the_same_graph(graph_of_tiny, tmp_path: Path) -> None:
    model, graph, weights = graph_of_tiny
    other, image = randomised(ViT(tiny_config()), 0.3), torch.rand(3, 12, 20)
    ours = run(graph, weights, other, tmp_path, image=image[None].numpy())
    np.testing.assert_allclose(ours[0], trace(other, image).logits.numpy(), atol=1e-4)
    assert np.abs(ours[0] - trace(model, image).logits.numpy()).max() > 0.1


def test_the_engine_in_javascript_makes_pythons_messages(graph_of_tiny, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is missing") if CI else pytest.skip("install node to run this test")
    model, _, weights = graph_of_tiny
    write_trace(tmp_path, "tiny", model, CARD)
    registers = randomised(
        ViT(tiny_config(num_registers=2, class_token=False, pool="mean", image_size=(20, 12)))
    )
    write_trace(tmp_path, "registers", registers, CARD)
    large, card = load("shapes")
    write_trace(tmp_path, "shapes", large, card)
    (tmp_path / "traces.json").write_text(json.dumps(["tiny", "registers", "shapes"]))
    write_pictures(tmp_path)
    state = model.state_dict()
    exact = torch.cat([weight.of(state).flatten() for weight in weights])
    write(tmp_path, "half.floats", exact.half().float().numpy())
    write(tmp_path, "eight.floats", exact.numpy())
    packs = [("half", 16, 0.0), ("eight", 8, float(exact.abs().max()) / 253)]
    for name, bits, _ in packs:
        content, listed = pack_weights(state, weights, bits)
        (tmp_path / f"{name}.pack").write_bytes(content)
        (tmp_path / f"{name}.list.json").write_text(json.dumps(listed))
    (tmp_path / "weights.json").write_text(json.dumps([dict(name=n, bound=b) for n, _, b in packs]))
    done = subprocess.run(
        [node, "--test", ROOT / "tests" / "js" / "site" / "engine.test.mjs"],
        env=os.environ | {"FIXTURES": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
