"""The page without a server: the graph, the engine in JavaScript against Python's numbers, the folder."""

import hashlib
import io
import json
import os
import shutil
import subprocess
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CI, clip_config, randomised, tiny_config
from families import FAMILIES
from PIL import Image

from explorer.cli.commands import main
from explorer.cli.request import Usage
from explorer.cli.site import check_free
from explorer.ledger import ledger
from explorer.lesson.answer import bag, shared
from explorer.lesson.follow import Choice, Follow
from explorer.lesson.steps import lesson_of, outline_of
from explorer.maps import rollout_all
from explorer.payload import (
    cosine_bytes,
    embeddings_payload,
    head_payload,
    layer_payload,
    quantize,
    sent_rows,
    written,
)
from explorer.site.folder import Shared, addresses, begin, described, is_export, write_site
from explorer.site.graph import (
    LEDGER,
    Inside,
    export_graph,
    export_inside,
    export_related,
    has_places,
    inside_outputs,
    pack_weights,
)
from explorer.site.pictures import CLIPS, Picture, sheet
from explorer.site.runtime import (
    GPU_SCRIPT,
    GPU_WASM,
    SCRIPT,
    WASM,
    SiteError,
    kept_or_fetched,
    runtime_files,
)
from explorer.stats import token_similarity
from vit import ViT, load, trace
from vit.card import Card
from vit.clipdecoder import check, chosen, is_clip
from vit.clips import MOST, Clip, ClipError, sampled, save_animated
from vit.grid import Grid
from vit.library import folder_of
from vit.moves import moves_sample
from vit.pictures import as_picture, preprocess, to_pixels
from vit.trace import MaskPatches, ZeroHeads

ROOT = Path(__file__).resolve().parent.parent
CARD = Card("tiny", class_names=tuple("abcdefg"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def write(folder: Path, name: str, array) -> None:
    (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())


def write_trace(folder: Path, name: str, model: ViT, card: Card) -> None:
    """What a model did, and what Python tells the viewer of it."""
    t = trace(model, torch.rand(model.config.input_shape()))
    for field in ("logits", "attn", "tokens"):
        write(folder, f"{name}.{field}", getattr(t, field).numpy())
    about = described(model, card, model.config.image_size)
    (folder / f"{name}.about.json").write_text(json.dumps(about))
    (folder / f"{name}.head").write_bytes(head_payload(t, card, model))
    (folder / f"{name}.embeddings").write_bytes(embeddings_payload(t, model))
    rollouts = rollout_all(t)
    rows = torch.from_numpy(sent_rows(t.grid, t.num_prefix_tokens, model.config.num_heads)[0]).long()
    for depth in range(model.config.depth + 1):
        write(folder, f"{name}.similarity{depth}", cosine_bytes(token_similarity(t, depth, rows)))
    for layer in range(model.config.depth):
        write(folder, f"{name}.rollout{layer}", rollouts[layer + 1].numpy())
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


LESSONS: dict[str, dict] = FAMILIES | {
    "class": {},
    "mean": {"pool": "mean", "num_registers": 2, "class_token": False, "rope": "axial", "pos_embed": "none"},
    "pooled": {"pool": "attention", "pre_norm": True},
    "several": {"num_class_tokens": 3, "post_norm": True, "rope": "mixed", "activation": "swiglu"},
    "headless": {"num_classes": 0},
    "clip": {"num_frames": 6, "tubelet": 2, "num_registers": 1},
    "clip, mean": {"num_frames": 4, "pool": "mean", "class_token": False, "pos_embed": "sincos"},
}


def write_lesson(folder: Path, name: str, changes: dict) -> None:
    """What a model did all the way, what its last steps ask for and get, and Python's lesson of it."""
    torch.manual_seed(len(name))
    model = randomised(ViT(tiny_config(**changes)))
    config, size, card = model.config, model.config.image_size, replace(CARD, class_names=())
    image = torch.rand(*config.input_shape())
    t = trace(model, image)
    classes = torch.zeros(config.num_classes)
    if config.num_classes:
        classes[int(t.logits.argmax())] = 1
    given = classes if config.num_classes else None
    seen = dict(zip(inside_outputs(model), Inside(model)(image[None], torch.ones(()), given)))
    written = [*seen, "image", "pixels"]
    pixels = np.stack([as_picture(frame, card) for frame in (image if config.is_clip else image[None])])
    seen |= {"image": image, "pixels": torch.from_numpy(pixels).float()}
    for field, value in seen.items():
        write(folder, f"{name}.seen.{field}", value.detach().numpy())
    choice = Choice(patch=22 if config.is_clip else 7, layer=1, head=2)
    follow = Follow(t, model, card, choice)
    once = shared(follow)
    passes: list[dict] = []
    if once:
        P, orders = t.grid.count, once["why"]["orders"]
        counts = [round(P * x) for x in once["why"]["fractions"]]
        passes = [{"hidden": each["hidden"]} for each in once["without"] if each["hidden"]]
        passes += [{"grey": order[:count]} for order in orders for count in counts[1:-1]]
        passes += [{"grey": orders[1]}, *([{"placeless": True}] if has_places(model) else [])]
        played = [each for step in ("order", "frozen") if step in once for each in once[step]["asked"]]
        passes += [{"frames": each["frames"]} for each in played]
    logits = [asked_logits(model, image, each, given) for each in passes]
    outline = outline_of(model, card, size) | {"placeless": has_places(model)}
    told = dict(
        about=described(model, card, size), outline=outline, written=written, choice=vars(choice),
        passes=passes, logits=logits, lesson=lesson_of(t, model, card, choice, once),
    )  # fmt: skip
    (folder / f"{name}.lesson.json").write_text(json.dumps(told))


@torch.no_grad()
def asked_logits(model: ViT, image: torch.Tensor, asked: dict, classes: torch.Tensor | None) -> list[float]:
    """What the model says in a pass that the lesson asks for."""
    if "hidden" in asked:
        edits = (MaskPatches(tuple(asked["hidden"]), model.config.num_prefix_tokens),)
        return trace(model, image, edits=edits).logits.tolist()
    if "frames" in asked:
        return model(image[asked["frames"]][None])[0].tolist()
    if "grey" in asked:
        painted, p, n = image.clone(), model.config.patch_size, model.config.tubelet
        for patch in asked["grey"]:
            *time, row, column = model.config.grid.place(patch)
            of_patch = painted[n * time[0] : n * time[0] + n] if time else painted
            of_patch[..., row * p : row * p + p, column * p : column * p + p] = 0
        return model(painted[None])[0].tolist()
    return Inside(model)(image[None], torch.zeros(()), classes)[0].tolist()


def run(graph: bytes, weights, model: ViT, folder: Path, **inputs) -> list[np.ndarray]:
    """What ONNX Runtime makes of a graph with a model's parameters, its other inputs as usual."""
    import onnxruntime

    content = b"".join(weight.of(model.state_dict()).numpy().tobytes() for weight in weights)
    (folder / "weights").write_bytes(content)
    (folder / "graph.onnx").write_bytes(graph)
    session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    config = model.config
    tokens = config.num_prefix_tokens + config.num_patches
    gate = np.ones((config.depth, config.num_heads), np.float32)
    given = {"hidden": np.zeros(tokens, np.float32), "gate": gate, "told": np.ones((), np.float32)}
    given |= {"classes": np.zeros(config.num_classes, np.float32)} | inputs
    names = {each.name for each in session.get_inputs()}
    return session.run(None, {name: value for name, value in given.items() if name in names})


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


@pytest.mark.parametrize("name", ["class", "mean", "BEiT", "headless", "clip"])
def test_the_graph_of_the_way_is_the_model_with_its_ledger(name: str, tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config(**LESSONS[name])))
    _, weights = export_graph(model, model.config.image_size)
    graph = export_inside(model, model.config.image_size, weights)
    image, classes = torch.rand(*model.config.input_shape()), torch.eye(7)[4]
    given = classes if model.config.num_classes else None
    for told in (1.0, 0.0):
        theirs = Inside(model)(image[None], torch.tensor(told), given)
        inputs = dict(image=image[None].numpy(), classes=classes.numpy(), told=np.array(told, np.float32))
        for output, a, b in zip(
            inside_outputs(model), run(graph, weights, model, tmp_path, **inputs), theirs
        ):
            np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-4, err_msg=output)
        if not has_places(model):
            return


@pytest.mark.parametrize("family", ["cls", "DINOv3", "BEiT", "BEiT beside a table"])
def test_squares_that_are_told_no_place_are_those_of_the_app(family: str) -> None:
    model = randomised(ViT(tiny_config(**FAMILIES[family])))
    image, card = torch.rand(3, 12, 20), replace(CARD, scores="none")  # logits, as they are
    found = bag(Follow(trace(model, image), model, card, Choice()))
    assert has_places(model) and found["with"] != found["without"]
    logits = asked_logits(model, image, {"placeless": True}, torch.eye(7)[0])
    assert written(card, max(logits)) == found["without"]["written"]


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "num_registers": 2}, {"distillation": True}])
def test_the_ledger_of_the_way_is_pythons(changes: dict) -> None:
    model = randomised(ViT(tiny_config(**changes)))
    image, classes = torch.rand(3, 12, 20), torch.eye(7)[4]
    seen = dict(zip(inside_outputs(model), Inside(model)(image[None], torch.ones(()), classes)))
    theirs = ledger(trace(model, image), model, 4)
    for name, b in zip(LEDGER, (theirs.heads, theirs.mlp, theirs.embed, torch.tensor(theirs.bias))):
        np.testing.assert_allclose(seen[name].detach(), b, atol=5e-5, err_msg=name)


def test_other_weights_in_the_same_graph(graph_of_tiny, tmp_path: Path) -> None:
    model, graph, weights = graph_of_tiny
    other, image = randomised(ViT(tiny_config()), 0.3), torch.rand(3, 12, 20)
    ours = run(graph, weights, other, tmp_path, image=image[None].numpy())
    np.testing.assert_allclose(ours[0], trace(other, image).logits.numpy(), atol=1e-4)
    assert np.abs(ours[0] - trace(model, image).logits.numpy()).max() > 0.1


@pytest.mark.parametrize("changes", [{}, dict(num_registers=2, class_token=False, pool="mean")])
def test_tokens_of_a_layer_are_related_as_python_does_it(changes: dict) -> None:
    import onnxruntime

    model = randomised(ViT(tiny_config(**changes)))
    t = trace(model, torch.rand(3, 12, 20))
    session = onnxruntime.InferenceSession(export_related(model, (12, 20)))
    rollouts, rows = rollout_all(t), torch.arange(t.tokens.shape[1])
    for layer in range(model.config.depth):
        given = {"attn": t.attn[layer], "rolled": rollouts[layer], "tokens": t.tokens[layer + 1]}
        rolled, similar = session.run(None, {name: x.numpy() for name, x in given.items()})
        np.testing.assert_allclose(rolled, rollouts[layer + 1], atol=1e-6)
        expected = cosine_bytes(token_similarity(t, layer + 1, rows)).astype(int)
        assert similar.dtype == np.uint8 and np.abs(similar - expected).max() <= 1


def test_a_look_does_not_wait_for_pieces_of_earlier_ones(tmp_path: Path) -> None:
    passes_in_node("turns.test.mjs", tmp_path)


def test_a_model_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    passes_in_node("worker.test.mjs", tmp_path)


@pytest.mark.parametrize("name", ["again", "camera", "player"])
def test_small_modules_of_the_page_do_what_they_say(name: str, tmp_path: Path) -> None:
    passes_in_node(f"{name}.test.mjs", tmp_path)


def test_the_faster_way_to_run_the_model_is_kept(tmp_path: Path) -> None:
    passes_in_node("race.test.mjs", tmp_path)


def test_the_runtime_for_graphics_chips_comes_along_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("explorer.site.runtime.gzip.compress", lambda content, *_, **__: content)
    usual = {SCRIPT, f"{WASM}.gz"}
    assert set(runtime_files()) == usual
    assert set(runtime_files(webgpu=True)) == usual | {GPU_SCRIPT, f"{GPU_WASM}.gz"}


def test_a_runtime_that_came_only_in_part_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = b"the package"
    sha512 = b64encode(hashlib.sha512(whole).digest()).decode()
    monkeypatch.setattr("explorer.site.runtime.SHA512", sha512)
    monkeypatch.setattr("explorer.site.runtime.registry", lambda: "https://registry.example")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for answer, fetched in ((whole[:4], whole[:4]), (whole, whole), (b"never asked for", whole)):
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, answer=answer, **__: io.BytesIO(answer))
        assert kept_or_fetched() == fetched
    (kept,) = (tmp_path / "vit-explorer").iterdir()
    kept.write_bytes(whole[:4])
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(whole))
    assert kept_or_fetched() == whole == kept.read_bytes()


def passes_in_node(test: str, fixtures: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is missing") if CI else pytest.skip("install node to run this test")
    done = subprocess.run(
        [node, "--test", ROOT / "tests" / "js" / "site" / test],
        env=os.environ | {"FIXTURES": str(fixtures)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lesson_in_javascript_is_pythons(tmp_path: Path) -> None:
    for name, changes in LESSONS.items():
        write_lesson(tmp_path, name, changes)
    (tmp_path / "lessons.json").write_text(json.dumps(list(LESSONS)))
    passes_in_node("lesson.test.mjs", tmp_path)


def test_the_engine_in_javascript_makes_pythons_messages(graph_of_tiny, tmp_path: Path) -> None:
    model, _, weights = graph_of_tiny
    write_trace(tmp_path, "tiny", model, CARD)
    registers = randomised(
        ViT(tiny_config(num_registers=2, class_token=False, pool="mean", image_size=(20, 12)))
    )
    write_trace(tmp_path, "registers", registers, CARD)
    large, card = load("shapes")
    write_trace(tmp_path, "shapes", large, card)
    write_trace(tmp_path, "clip", randomised(ViT(clip_config(num_registers=1))), CARD)
    (tmp_path / "traces.json").write_text(json.dumps(["tiny", "registers", "shapes", "clip"]))
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
    passes_in_node("engine.test.mjs", tmp_path)


def test_rows_and_bytes_in_javascript_are_pythons(tmp_path: Path) -> None:
    """Also where there are too many rows for all to be sent: of long clips, of very large pictures."""
    sent, small = [], ((1, 14, 14), 1, 12)
    large = ((8, 14, 14), 0, 6), ((1, 60, 61), 5, 16), ((2, 37, 50), 1, 12), ((1, 3, 90), 0, 400)
    for shape, prefix, heads in (*large, small):
        grid = Grid(shape if shape[0] > 1 else shape[1:])
        tokens, row_of = sent_rows(grid, prefix, heads)
        t, h, w = shape
        about = dict(grid=dict(t=t, h=h, w=w, prefix=prefix), heads=heads)
        sent.append(about | dict(tokens=tokens.tolist(), rowOf=row_of.tolist()))
    fewer = [len(each["tokens"]) < len(each["rowOf"]) for each in sent]
    assert fewer == [True, True, True, True, False]
    T, prefix, looked_at = 151, 2, [0, 1, 4, 7, 38, 39]
    weights = (4 * torch.randn(40, T)).softmax(dim=-1)
    weights[4] = 0
    weights[7, prefix:] = 0
    steps, maxima = quantize(weights[looked_at], prefix)
    write(tmp_path, "rows.floats", weights.numpy())
    (tmp_path / "rows.bytes").write_bytes(steps.tobytes())
    rows = dict(count=40, T=T, prefix=prefix, chosen=looked_at, maxima=maxima.ravel().tolist())
    (tmp_path / "figures.json").write_text(json.dumps(dict(sent=sent, rows=rows)))
    passes_in_node("figures.test.mjs", tmp_path)


def test_clips_are_taken_as_python_takes_them(tmp_path: Path) -> None:
    samples = []
    for count, read in [(1, 8), (5, 8), (8, 8), (13, 4), (32, 8), (100, 16), (333, 8)]:
        kept = chosen(count, MOST)
        few = Clip(np.zeros((len(kept), 1, 1, 3), np.uint8), tuple(range(len(kept))))
        seen = [int(time) for time in sampled(few, read).times]
        samples.append(dict(count=count, most=MOST, kept=kept, read=read, seen=seen))
    frames, _, _ = moves_sample(3, 1)
    clip = Clip(frames[:7], tuple(i / 8 for i in range(7)))
    picture = Image.fromarray(frames[0])
    save_animated(clip, tmp_path / "moving.webp")
    still = [picture.resize((9, 9)), picture.resize((9, 8))]
    for name in ("moving.gif", "moving.png"):
        still[0].save(tmp_path / name, save_all=True, append_images=still[1:])
    for name in ("still.webp", "still.png", "still.jpg"):
        picture.save(tmp_path / name)
    picture.save(tmp_path / "still.gif", comment=b"none")
    for brand in ("isom", "avif", "avis", "heic", "heix", "mif1", "msf1", "crx "):
        (tmp_path / f"{brand}.mp4").write_bytes(b"\0\0\0 ftyp" + brand.encode() + bytes(99))
    (tmp_path / "video.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(99))
    (tmp_path / "empty.gif").write_bytes(b"")
    files = [dict(name=f.name, moves=is_clip(f)) for f in sorted(tmp_path.iterdir())]
    assert sum(each["moves"] for each in files) == 8
    refused = []
    for told in [(9000, 10, 9, 1), (10, 8193, 0, 0), (64, 64, 20001, 0), (64, 64, 0, 601), (64, 64, 9, 9)]:
        try:
            check(*told)
            said = ""
        except ClipError as error:
            said = str(error)
        refused.append(dict(clip=dict(zip(("width", "height", "count", "seconds"), told)), said=said))
    whole, across = sheet(clip)
    write(tmp_path, "sheet.rgba", np.asarray(whole.convert("RGBA")))
    config, card = clip_config(), Card("x", mean=CARD.mean, std=CARD.std)
    model_reads = Picture("x", "x", clip).read_by(config, card, config.image_size)
    write(tmp_path, "clip.image", model_reads.numpy())
    told = dict(
        samples=samples, files=files, refused=refused, rules=CLIPS,
        times=sampled(clip, config.num_frames).times,
        width=whole.width, height=whole.height, sheet=dict(across=across, times=clip.times),
        about=described(ViT(config), card, config.image_size),
    )  # fmt: skip
    (tmp_path / "clips.json").write_text(json.dumps(told))
    passes_in_node("clips.test.mjs", tmp_path)


def test_what_a_browser_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site"
    model = ViT(tiny_config())
    monkeypatch.setattr("explorer.site.folder.LIMIT", 1000)
    with pytest.raises(SiteError, match="million parameters, too many for a browser"):
        write_site(folder, [Shared("tiny", model, CARD)], [])
    monkeypatch.undo()
    grey = ViT(tiny_config(in_chans=1))
    with pytest.raises(SiteError, match="reads 1 channels, a photograph has 3"):
        write_site(folder, [Shared("grey", grey, CARD)], [])
    monkeypatch.setattr("explorer.site.folder.ATTENTION", 4 * 3 * 4 * 16**2 - 1)
    with pytest.raises(SiteError, match="attention of tiny takes 0 MiB, too much for a browser"):
        write_site(folder, [Shared("tiny", model, CARD)], [])
    monkeypatch.undo()
    with pytest.raises(SiteError, match="Two of these models have one name"):
        write_site(folder, [Shared("a", model, CARD), Shared("a", model, CARD)], [])
    assert not folder.exists()


class Interrupted(Exception):
    pass


def test_an_export_takes_the_place_of_one_that_was_there_or_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("explorer.site.folder.runtime_files", lambda *_: {SCRIPT: b"", f"{WASM}.gz": b""})
    folder, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    small = ViT(tiny_config(depth=1))
    pictures = [Picture(name, name, Image.new("RGB", (8, 8))) for name in ("one", "two")]

    def interrupt(text: str) -> None:
        if text.endswith("graph"):
            raise Interrupted

    with pytest.raises(Interrupted):
        write_site(folder, [Shared("old", small, CARD)], pictures, progress=interrupt)
    check_free(folder, is_export(folder))
    (folder / "CNAME").write_text("mine")
    (elsewhere / "models").mkdir(parents=True)
    (elsewhere / "models" / "kept.bin").write_text("mine")
    (folder / "models").symlink_to(elsewhere / "models")
    for name in ("old", "new"):
        write_site(folder, [Shared(name, small, CARD)], pictures)
        pictures.pop()
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["0-small.webp", "0.webp"]
    assert [path.name for path in (folder / "models").iterdir()] == ["new"]
    assert (folder / "CNAME").exists() and (elsewhere / "models" / "kept.bin").exists()
    site = json.loads((folder / "site.json").read_bytes())
    assert [each["name"] for each in site["models"]] == ["new"]


@pytest.mark.parametrize("theirs", ["{}", '{"title": "Mine"}', '{"title": "", "runtime": []}', "[]", "", "{"])
def test_another_folder_with_a_list_of_that_name_keeps_what_it_has(theirs: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "site.json").write_text(theirs)
    with pytest.raises(Usage, match="holds something else"):
        check_free(tmp_path, is_export(tmp_path))
    begin(tmp_path, "Mine")
    assert (tmp_path / "models").is_dir()


def test_a_site_says_which_pictures_it_leaves_out_and_takes_a_model_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list = []
    monkeypatch.setattr("explorer.cli.site.write_site", lambda where, *told, **_: given.append(told))
    folder, out = tmp_path / "pictures", tmp_path / "the site"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    words = [
        "site",
        str(out),
        "--model",
        "shapes",
        "--model",
        str(folder_of("shapes")),
        "--image",
        str(folder),
    ]
    assert main(words) == 2
    assert "None of these pictures can be read: name others." in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(folder / "whole.png")
    assert main(words) == 1
    said = capsys.readouterr()
    assert "broken.png: " in said.err and f"python '{out / 'serve.py'}'" in said.out
    ((models, pictures),) = given
    assert [each.name for each in models] == ["shapes"] and [each.name for each in pictures] == ["whole"]


def test_a_runtime_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tgz", tmp_path):
        with pytest.raises(SiteError, match=r" cannot be read: make it with `npm pack onnxruntime-web@1"):
            runtime_files(path)


def test_no_two_models_have_one_address() -> None:
    assert addresses(["a b", "a/b", "A-B", "猫", "犬", "x"]) == [
        "a-b",
        "a-b-2",
        "A-B-3",
        "model",
        "model-2",
        "x",
    ]
    assert addresses(["../x", "." * 9, "a" * 300]) == ["x", "model", "a" * 60]
