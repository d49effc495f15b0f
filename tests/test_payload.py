"""What the viewer is sent: nothing is lost but what the docstring of explorer/payload.py admits."""

import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from explorer import maps, payload, stats
from explorer.render import COLORMAPS
from explorer.roles import Roles
from vit import ViT, trace
from vit.card import Card
from vit.grid import Grid
from vit.pictures import denormalize
from vit.trace import Trace, attention_at

CARD = Card(name="tiny", class_names=tuple("abcdefg"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture
def model() -> ViT:
    return randomised(ViT(tiny_config(num_registers=2)))


@pytest.fixture
def found(model: ViT) -> Trace:
    pixels = torch.rand(3, 12, 20)
    return trace(
        model, (pixels - torch.tensor(CARD.mean).view(3, 1, 1)) / torch.tensor(CARD.std).view(3, 1, 1)
    )


def dequantize(steps: np.ndarray, maxima: np.ndarray, num_prefix: int) -> np.ndarray:
    """What the viewer makes of `payload.quantize`: (..., T) float32."""
    part = (np.arange(steps.shape[-1]) >= num_prefix).astype(int)
    return maxima[..., part] * (steps.astype(np.float32) / 255) ** 2


def bound(values: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The error that the docstring admits, and as much again as float32 rounds."""
    return np.sqrt(values * maxima) / 255 + maxima / 510**2 + 1e-6 * maxima + 1e-37


def close(steps: np.ndarray, maxima: np.ndarray, truth: torch.Tensor, num_prefix: int) -> bool:
    part = (np.arange(truth.shape[-1]) >= num_prefix).astype(int)
    error = np.abs(dequantize(steps, maxima, num_prefix) - truth.numpy())
    return bool((error <= bound(truth.numpy(), maxima[..., part])).all())


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.sampled_from([np.uint8, np.int32, np.float32]).flatmap(
            lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        ),
    ),
    st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans())),
)
def test_container_returns_what_was_packed(sections, meta):
    back, said = payload.unpack(payload.pack(sections, meta))
    assert said == meta
    assert set(back) == set(sections)
    for name, array in sections.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_sections_are_aligned_for_typed_arrays():
    import gzip
    import json

    raw = gzip.decompress(
        payload.pack({"a": np.zeros(3, np.uint8), "b": np.zeros(5, np.float32)}, {"x": "ä"})
    )
    length = int.from_bytes(raw[8:12], "little")
    assert (16 + length) % 8 == 0
    assert all(s["offset"] % 8 == 0 for s in json.loads(raw[16 : 16 + length])["sections"].values())


@pytest.mark.parametrize(
    "damage", [lambda m: m[:-20], lambda m: b"", lambda m: b"hello" * 9, lambda m: m[:30]]
)
def test_a_damaged_message_is_one_clear_error(damage):
    message = payload.pack({"a": np.arange(400, dtype=np.float32)}, {})
    with pytest.raises(ValueError, match="no message for the viewer"):
        payload.unpack(damage(message))


@settings(max_examples=200, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 30)),
        elements=st.floats(0, 1, width=32) | st.floats(0, 2**-20, width=32) | st.just(0.0),
    ),
    st.integers(0, 5),
)
def test_quantised_rows_err_no_more_than_promised(rows, num_prefix):
    num_prefix = min(num_prefix, rows.shape[1])
    steps, maxima = payload.quantize(torch.from_numpy(rows), num_prefix)
    assert close(steps, maxima, torch.from_numpy(rows), num_prefix)


OF_A_SECOND = ("P2", "h2", "w2", "B2", "M")  # letters of messages about two pictures: test_pairs.py
KINDS = (
    {},
    {"num_registers": 2},
    {"class_token": False, "pool": "mean", "num_registers": 2},
    {"num_classes": 0},
    {"class_token": False, "pool": "mean"},
    {"distillation": True},
)


def agrees(message: bytes, letters: dict[str, int], grid: Sequence[int] = (3, 5)) -> set[str]:
    """Check a message against SCHEMA; its optional sections and keys that are not there."""
    arrays, meta = payload.unpack(message)
    said = payload.SCHEMA["messages"][meta["kind"]]
    for name, array in arrays.items():
        section = said["sections"].get(name) or said["sections"]["*"]
        known = {**letters, "B": array.size}
        sizes = [size for each in section["shape"] for size in (grid if each == "grid" else [each])]
        shape = [int(eval(str(size), {}, known)) for size in sizes]
        assert (array.dtype.name, list(array.shape)) == (section["dtype"], shape), name
        assert section["about"]
    assert set(meta) <= set(said["meta"])
    missing = {name for name in said["sections"] if name != "*"} - set(arrays) | set(said["meta"]) - set(meta)
    everything = {**said["sections"], **said["meta"]}
    assert all(isinstance(everything[name], dict) and "when" in everything[name] for name in missing), missing
    return missing


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_prefix_tokens_have_their_names_without_the_model(changes):
    model = randomised(ViT(tiny_config(**changes)))
    _, meta = payload.unpack(payload.head_payload(trace(model, torch.randn(3, 12, 20)), CARD))
    assert tuple(meta["prefix_names"]) == model.config.prefix_names


@pytest.mark.parametrize("changes", KINDS, ids=str)
@pytest.mark.parametrize("budget", [2**23, 200], ids=["all rows", "some rows"])
def test_every_message_is_what_the_schema_says(changes, budget, monkeypatch):
    monkeypatch.setattr(payload, "ROW_BUDGET", budget)
    model = randomised(ViT(tiny_config(**changes)))
    found = trace(model, torch.randn(3, 12, 20))
    sent, _ = payload.sent_rows(found.grid, found.num_prefix_tokens, 4)
    letters = dict(L=3, H=4, T=found.tokens.shape[1], P=15, h=3, w=5, Q=len(sent), K=len(found.logits))
    letters |= dict(C=len(COLORMAPS), N=len(stats.patch_filters(model)), p=4, q=4, t=1, F=1)
    assert set(letters) | {"B", "grid", *OF_A_SECOND} == set(payload.SCHEMA["letters"])
    roles = Roles("", "", 1, {"sink": [[0.9] * 4, [0.1] * 4, [0.1] * 4]}, {"layer": 1})
    head, embeddings, first, *others = payload.payloads(found, CARD, model, roles, "cp_lrp")
    named = payload.unpack(head)[1]
    assert named["head_names"] == [[["sink"]] * 4, [[]] * 4, [[]] * 4] and named["opening"] == {"layer": 1}
    plain = payload.unpack(payload.head_payload(found, CARD, model))[1]
    assert "opening" not in plain and "believed" not in plain
    assert named["believed"] == "cp_lrp"
    of_clips = {"frames", "frame_ends", "times", "lag_share", "uniform_lags"}
    assert [agrees(message, letters) for message in (head, embeddings, first)] == [of_clips, set(), set()]
    assert all(agrees(message, letters) == {"similarity_embed"} for message in others)
    agrees(payload.maps_at_hand(found, CARD, model)[0], letters)
    assert agrees(payload.exact_payload(found.attn[1], 1), letters) == set()
    short = trace(model, torch.randn(3, 12, 20), keep=("resid_post",))
    attn = attention_at(model, short.tokens[1], 1)
    assert agrees(payload.layer_payload(short, 1, attn=attn), letters) >= {"rollout", "rollout_max"}


def clip_model() -> ViT:
    return randomised(ViT(tiny_config(num_frames=6, tubelet=2)))


def test_a_clip_is_what_the_schema_says_frame_by_frame():
    model = clip_model()
    found = trace(model, torch.rand(6, 3, 12, 20) * 2 - 1)
    letters = dict(L=3, H=4, T=46, P=45, t=3, h=3, w=5, Q=46, K=7, C=len(COLORMAPS), p=4, q=8)
    letters["N"] = len(stats.patch_filters(model))
    head = payload.head_payload(found, CARD, model, times=[0, 0.5, 1, 1.5, 2, 2.5])
    embeddings = payload.embeddings_payload(found, model)
    layer = payload.layer_payload(found, 0, rollout=maps.rollout_all(found)[1])
    grid = (3, 3, 5)
    assert agrees(head, letters, grid) == {"image", "head_names", "opening", "believed"}
    assert agrees(embeddings, letters, grid) == agrees(layer, letters, grid) == set()
    sections, meta = payload.unpack(head)
    assert meta["grid_size"] == [3, 3, 5] and meta["times"] == [0, 1, 2], "of each tubelet the first frame"
    start = 0
    for frame, end in zip(found.image[::2], sections["frame_ends"], strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(sections["frames"][start:end].tobytes())))
        expected = denormalize(frame, CARD).mul(255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(drawn, expected)  # PNG: small frames are sent without loss
        start = end
    colours = payload.unpack(embeddings)[0]["pca_joint"]
    assert colours.shape == (4, 3, 3, 5, 3) and 100 < colours.mean() < 155, "one basis for all frames"


def test_a_sink_does_not_take_the_steps_of_the_patches():
    patches = torch.rand(1, 50) * 1e-5
    rows = torch.cat([1 - patches.sum(dim=-1, keepdim=True), patches], dim=-1)  # [CLS] takes 99.98 %
    back = dequantize(*payload.quantize(rows, 1), 1)
    assert np.abs(back[:, 1:] - patches.numpy()).max() <= 0.004 * patches.max()


def test_head_says_geometry_classes_and_image(model, found):
    sections, meta = payload.unpack(payload.head_payload(found, CARD, model))
    assert meta["grid_size"] == [3, 5] and (meta["height"], meta["width"]) == (12, 20)
    assert meta["prefix_names"] == ["[CLS]", "[REG1]", "[REG2]"]
    assert (meta["num_layers"], meta["num_heads"], meta["num_tokens"]) == (3, 4, 18)
    best = found.logits.softmax(-1).max(-1)
    assert meta["classes"][0]["name"] == "abcdefg"[best.indices]
    assert math.isclose(meta["classes"][0]["value"], best.values, rel_tol=1e-6)
    picture = np.asarray(Image.open(io.BytesIO(sections["image"].tobytes())))
    expected = denormalize(found.image, CARD).permute(1, 2, 0).mul(255).round()
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(sections["colormaps"][meta["colormaps"].index("magma")], COLORMAPS["magma"])


def test_head_holds_the_figures_of_stats(model, found):
    sections, meta = payload.unpack(payload.head_payload(found, CARD, model))
    np.testing.assert_allclose(sections["distance"], stats.attention_distance(found))
    effective = stats.effective_tokens(found)[..., 3:].mean(-1)
    np.testing.assert_allclose(sections["effective_tokens"], effective, rtol=1e-6)
    np.testing.assert_allclose(sections["prefix_share"], stats.prefix_share(found).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(sections["norms"], stats.token_norms(found))
    assert meta["uniform_distance"] == stats.uniform_distance(found)


def test_embeddings_hold_colours_positions_and_filters(model, found):
    sections, _ = payload.unpack(payload.embeddings_payload(found, model))
    assert sections["pca_joint"].shape == sections["pca_depth"].shape == (4, 3, 5, 3)
    similarity = stats.position_similarity(model).reshape(15, 15)
    np.testing.assert_allclose(sections["positions"] / 127 - 1, similarity, atol=0.5 / 127 + 1e-6)
    assert sections["filters"].shape[1:] == (4, 4, 3)


def test_layers_hold_attention_rollout_and_similarity(found):
    rollouts = maps.rollout_all(found)
    for layer in range(3):
        sections, _ = payload.unpack(payload.layer_payload(found, layer, rollout=rollouts[layer + 1]))
        assert close(sections["attn"], sections["attn_max"], found.attn[layer], 3)
        assert close(sections["rollout"], sections["rollout_max"], rollouts[layer + 1], 3)
        similarity = stats.token_similarity(found, layer + 1, torch.arange(18))
        np.testing.assert_allclose(sections["similarity"] / 127 - 1, similarity, atol=0.5 / 127 + 1e-5)
        assert ("similarity_embed" in sections) == (layer == 0)


def test_a_trace_without_attention_is_sent_layer_by_layer(model, found):
    light = trace(model, found.image, keep=())
    head, meta = payload.unpack(payload.head_payload(light, CARD, model))
    assert meta["num_heads"] == 4 and "distance" not in head
    attn = attention_at(model, light.tokens[1], 1)
    sections, _ = payload.unpack(payload.layer_payload(light, 1, attn=attn))
    assert close(sections["attn"], sections["attn_max"], found.attn[1], 3)
    assert payload.unpack(payload.head_payload(light, CARD))[1]["num_heads"] == 4


@pytest.mark.parametrize(
    "grid, heads", [((14, 14), 12), ((24, 24), 16), ((37, 37), 12), ((60, 80), 12), ((3, 900), 6)]
)
def test_rows_of_large_models_fit_the_budget_and_stand_for_their_neighbours(grid, heads):
    sent, row_of = payload.sent_rows(Grid(grid), 5, heads)
    num_tokens = 5 + grid[0] * grid[1]
    assert heads * len(sent) * num_tokens <= payload.ROW_BUDGET
    assert sent[:5].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(row_of[sent], np.arange(len(sent)))  # a row that is sent stands for itself
    stand_in = sent[row_of[5:]] - 5
    away = np.maximum(
        np.abs(stand_in // grid[1] - np.arange(num_tokens - 5) // grid[1]),
        np.abs(stand_in % grid[1] - np.arange(num_tokens - 5) % grid[1]),
    )
    stride = math.sqrt((num_tokens - 5) / (len(sent) - 5))
    assert away.max() <= math.ceil(stride) / 2 + 1
    if num_tokens < 600:
        assert len(sent) == num_tokens


@pytest.mark.parametrize("frames, heads", [(8, 12), (16, 12), (3, 2)])  # VideoMAE-B, ViViT-B, a small one
def test_rows_of_a_long_clip_are_those_of_its_frames(frames, heads):
    grid = Grid((frames, 14, 14))
    sent, row_of = payload.sent_rows(grid, 1, heads)
    assert heads * len(sent) * (1 + grid.count) <= payload.ROW_BUDGET
    stand_in = torch.from_numpy(sent[row_of])
    away = (grid.places()[stand_in[1:] - 1] - grid.places()).abs()
    assert away[:, 0].max() == 0, "in its own frame"
    assert away[:, 1:].max() <= math.ceil(math.sqrt(grid.count / (len(sent) - 1))) / 2 + 1
    np.testing.assert_array_equal(row_of[sent], np.arange(len(sent)))


def test_a_large_layer_sends_the_rows_it_names(found, monkeypatch):
    monkeypatch.setattr(payload, "ROW_BUDGET", 4 * 18 * 10)
    sent, _ = payload.sent_rows(found.grid, 3, 4)
    assert len(sent) < 18
    sections, _ = payload.unpack(payload.layer_payload(found, 2))
    assert close(sections["attn"], sections["attn_max"], found.attn[2][:, torch.from_numpy(sent).long()], 3)


def test_maps_travel_unrounded():
    found = {"rollout": torch.rand(3, 5), "gradient": torch.randn(3, 5)}
    sections, meta = payload.unpack(payload.maps_payload(found, CARD, target=4, query=2))
    assert meta == {"kind": "maps", "target": 4, "class_name": CARD.class_names[4], "query": 2}
    for name, value in found.items():
        np.testing.assert_array_equal(sections[name], value)


@pytest.mark.parametrize(
    ("contrast", "said"), [(None, "c"), (1, "c and not b"), ("others", "c and not all others")]
)
def test_maps_are_called_what_the_trace_explains(model, contrast, said):
    seen = trace(model, torch.rand(3, 12, 20), target=2, contrast=contrast)
    assert payload.unpack(payload.maps_at_hand(seen, CARD, model)[0])[1]["class_name"] == said


def test_colours_are_the_components_in_their_order(found):
    colours, _ = payload.unpack(payload.embeddings_payload(found))
    scores = stats.patch_pca(found).scores.numpy()
    for channel in range(3):
        pair = scores[..., channel].ravel(), colours["pca_joint"][..., channel].ravel()
        assert np.corrcoef(*pair)[0, 1] > 0.95
