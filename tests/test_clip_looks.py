"""Clips in front of models: of pictures frame by frame, of clips at once; time frozen; films through time."""

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image
from torch.nn.functional import normalize

from explorer import films, payload, stats, ui
from explorer import look as looks
from explorer import session as session_module
from explorer.cli.arguments import parse_query
from explorer.cli.request import Usage
from explorer.look import TRAINED
from explorer.session import Session, digest_of
from explorer.subject import subject_of
from explorer.views.page import Edits, Failed, Shown
from vit import ViT, save, trace
from vit.card import Card
from vit.clips import ClipError, open_clip
from vit.grid import Grid
from vit.trace import FreezeTime

CARD = Card(name="tiny", class_names=tuple("abcdefg"), mean=(0.5,) * 3, std=(0.5,) * 3, image_size=(12, 20))
CLIP = dict(num_frames=6, tubelet=2)


def model_of(**changes) -> ViT:
    torch.manual_seed(7)
    return randomised(ViT(tiny_config(**changes)))


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    frames = [Image.fromarray(np.full((24, 40, 3), 40 * i, np.uint8)) for i in range(5)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=200)
    return tmp_path / "clip.gif"


def look(tmp_path: Path, gif: Path, frame: int = 0, **changes):
    save(tmp_path / "model", model_of(**changes), CARD)
    return Session().look(gif, str(tmp_path / "model"), frame=frame)


def test_frozen_time_is_a_clip_of_one_frame_repeated():
    model, clip = model_of(**CLIP), torch.randn(6, 3, 12, 20)
    frozen = trace(model, clip, edits=[FreezeTime(1, 3)])
    expected = trace(model, clip[2:4].repeat(3, 1, 1, 1))
    torch.testing.assert_close(frozen.logits, expected.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(frozen.attn, expected.attn, rtol=0, atol=1e-6)
    assert not torch.allclose(frozen.logits, trace(model, clip).logits)
    for edit in (lambda: FreezeTime(3, 3), lambda: trace(model, clip, edits=[FreezeTime(0, 4)])):
        with pytest.raises(ValueError, match=r"no time 3 to freeze|has 3 times, not 4"):
            edit()


def test_a_model_of_pictures_looks_at_a_clip_frame_by_frame(tmp_path: Path, gif: Path):
    seen = look(tmp_path, gif)
    value = seen.viewer_value()
    assert [each["words"] for each in value["timeline"]][:2] == ["time 0 · 0.00 s", "time 1 · 0.20 s"]
    assert value["head"] == value["timeline"][0]["head"] and len({m["head"] for m in value["timeline"]}) == 5
    for frame, one in enumerate(seen.at_every_frame):
        picture = Image.fromarray(np.full((24, 40, 3), 40 * frame, np.uint8))
        np.testing.assert_array_equal(np.asarray(one.pixels), np.asarray(picture))
    assert look(tmp_path, gif, frame=99).moment == 4, "the last that there is"


def test_strangers_have_every_frame_looked_at_only_where_that_is_little_work(tmp_path, gif, monkeypatch):
    seen = look(tmp_path, gif)
    seen.session.public = True
    for passes, well in ((4.5, False), (5, True)):
        monkeypatch.setattr(looks, "PUBLIC_WORK_LIMIT", passes * seen.cost.flops)
        for make in (looks.make_follow, looks.make_embeddings):
            with nullcontext() if well else pytest.raises(looks.TooLarge, match="choose a smaller size"):
                make(seen)


def test_frames_share_a_basis_of_colours_and_patches_are_found_again():
    model = model_of()
    traces = [trace(model, torch.randn(3, 12, 20)) for _ in range(3)]
    one = payload.as_one_clip(traces)
    whole = payload.pca_colors(one, joint=True)
    for frame, seen in enumerate(traces):
        arrays, _ = payload.unpack(payload.embeddings_payload(seen, model, (traces, frame)))
        np.testing.assert_array_equal(arrays["pca_joint"], whole[:, frame])
    arrays, meta = payload.unpack(payload.follow_payload(traces))
    assert meta == {"kind": "follow"}
    for f in range(3):
        for g in range(3):
            a, b = (normalize(traces[i].tokens[-1, 1:].double(), dim=-1) for i in (f, g))
            assert arrays["matches"][f, g].tolist() == (a @ b.T).argmax(dim=-1).tolist()


def test_a_model_of_clips_reads_the_clip_at_once(tmp_path: Path, gif: Path):
    seen = look(tmp_path, gif, **CLIP)
    assert seen.image.shape == (6, 3, 12, 20) and "timeline" not in seen.viewer_value()
    head, meta = payload.unpack(payload.head_payload(seen.trace(), CARD, times=seen.seen.times))
    assert meta["times"] == pytest.approx([0, 0.4, 0.6]) and len(head["frame_ends"]) == 3
    edits = seen.edits([1], [], 2)
    assert edits[-1] == FreezeTime(2, 3) and seen.trace(edits=edits).tokens.shape == (4, 46, 32)
    assert seen.edits([], [], 3) == seen.edits([], [], "x") == seen.edits([], []) == ()


def test_maps_of_a_clip_lie_on_its_frames_side_by_side():
    model, clip = model_of(**CLIP), torch.randn(6, 3, 12, 20)
    subject = subject_of("clip", clip, model, CARD)
    assert subject.picture.shape == (12, 60, 3)
    np.testing.assert_array_equal(subject.frame(1), subject.picture[:, 20:40])
    assert subject.patch(1 + 15 * 2 + 5 + 3) == (1, 2 * 5 + 3)
    values = np.arange(45).reshape(3, 3, 5)
    beside = subject.sheet(torch.from_numpy(values))
    np.testing.assert_array_equal(beside, np.concatenate(list(values), axis=1))


def test_films_go_through_time(monkeypatch):
    drawn = []
    keep = lambda picture, maps, **how: drawn.append((picture, maps, how))  # noqa: E731
    monkeypatch.setattr(films.render, "maps_figure", keep)
    monkeypatch.setattr(films.render, "picture_of", lambda figure, dpi: np.zeros((2, 2, 3), np.uint8))
    subject = subject_of("clip", torch.randn(6, 3, 12, 20), model_of(**CLIP), CARD)
    assert len(films.clip_film(subject, query=1 + 15 + 7).frames()) == 3
    assert [how["query"] for _, _, how in drawn] == [None, (1, 2), None], "framed in its own frame"
    scales = {scale.top.item() for _, _, how in drawn for scale in how["scales"].values()}
    assert len(scales) == 1, "one scale for all frames"
    drawn.clear()
    model = model_of()
    moments = [(i / 2, subject_of("clip", torch.randn(3, 12, 20), model, CARD)) for i in range(4)]
    assert len(films.followed_film(moments, query=8).frames()) == 4
    matches = stats.frame_matches(torch.stack([one.trace.tokens[-1, 1:] for _, one in moments]))[0, :, 7]
    assert [how["query"] for _, _, how in drawn] == [divmod(int(patch), 5) for patch in matches]


def test_a_patch_of_a_clip_is_named_with_its_time():
    config = tiny_config(**CLIP)
    assert Grid((3, 3, 5)).name(15 + 2 * 5 + 3) == "patch (2, 3) at time 1"
    assert parse_query("1,2,3", config, (3, 3, 5)) == 1 + 15 + 2 * 5 + 3
    for text, why in (("2,3", "TIME,ROW,COLUMN"), ("3,0,0", "There is no patch")):
        with pytest.raises(Usage, match=why):
            parse_query(text, config, (3, 3, 5))


def test_a_clip_is_decoded_once_and_no_two_at_the_same_time(tmp_path: Path, gif: Path, monkeypatch):
    decoded, at_once, barrier = [], [], threading.Semaphore(1)

    def decode(path):
        at_once.append(barrier.acquire(blocking=False))
        decoded.append(Path(path).name)
        if len(decoded) == 1:
            second.start()
            second.join(0.2)  # it would decode meanwhile if it could
        if at_once[-1]:
            barrier.release()
        return open_clip(path, 32)

    monkeypatch.setattr("explorer.session.open_clip_safely", decode)
    other = tmp_path / "other.gif"
    other.write_bytes(gif.read_bytes() + b"\0")
    session = Session()
    second = threading.Thread(target=lambda: session.clip(other, digest_of(other)))
    session.clip(gif, digest_of(gif))
    second.join()
    assert decoded == ["clip.gif", "other.gif"] and at_once == [True, True]
    save(tmp_path / "model", model_of(), CARD)
    assert len(session.look(gif, str(tmp_path / "model")).clip.frames) == 5 and len(decoded) == 2
    shown = ui.kept_clip(session, [str(gif)], "ann")
    assert len(session.look(shown, str(tmp_path / "model")).clip.frames) == 5 and len(decoded) == 2


def test_a_clip_that_memory_had_no_room_for_is_not_decoded_again(tmp_path: Path, gif: Path, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "explorer.session.open_clip_safely", lambda path: decoded.append(path) or open_clip(path, 32)
    )
    session = Session(result_bytes=1000)
    first, again = (session.clip(gif, digest_of(gif), "ann") for _ in range(2))
    assert len(decoded) == 1 and len(session.results) == 0
    assert np.array_equal(first.frames, again.frames) and first.times == again.times
    session.release("ann")
    assert not [*session.folder.iterdir()], "what only they had goes with them"


def test_several_pictures_are_the_frames_of_a_clip(tmp_path: Path):
    session, files = Session(), []
    for i in (10, 9, 1):
        files.append(str(tmp_path / f"frame{i}.png"))
        Image.new("RGB", (20, 12), (10 * i, 0, 0)).save(files[-1])
    shown = ui.kept_clip(session, files, "ann")
    clip = session.clip(shown, digest_of(shown), "ann")
    assert clip.frames[:, 0, 0, 0].tolist() == [10, 90, 100] and Image.open(shown).n_frames == 3
    assert ui.kept_clip(session, files[:1], "ann") == files[0], "one picture is a picture"
    Image.new("RGB", (30, 12)).save(tmp_path / "wide.png")
    for sent, why in (([*files, str(tmp_path / "wide.png")], "one size"), ([], "Choose")):
        with pytest.raises(ClipError, match=why):
            ui.kept_clip(session, sent, "ann")
    Image.new("RGB", (8, 8)).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
    )
    with pytest.raises(ClipError, match="One clip at a time"):
        ui.kept_clip(session, [*files, str(tmp_path / "a.gif")], "ann")


def test_clips_of_two_visitors_that_begin_with_the_same_picture_are_two(tmp_path: Path):
    """Gradio puts a picture into a folder that is named after its content: both send into the same one."""
    session, files = Session(), [str(tmp_path / f"frame{i}.png") for i in range(4)]
    for i, file in enumerate(files):
        Image.new("RGB", (20, 12), (10 * i, 0, 0)).save(file)
    first, *others = files
    ann, bob = (ui.kept_clip(session, [first, *more], "who") for more in (others[:1], others[1:]))
    for shown, frames in ((ann, [0, 10]), (bob, [0, 20, 30])):
        assert session.clip(shown, digest_of(shown)).frames[:, 0, 0, 0].tolist() == frames
    assert ui.kept_clip(session, [first, others[0]], "cid") == ann, "what is the same lies there once"
    assert sorted(path.name for path in tmp_path.rglob("*.webp")) == ["clip.webp"] * 2


def test_files_are_decoded_before_the_queue_of_the_model(tmp_path: Path, gif: Path, monkeypatch):
    save(tmp_path / "model", model_of(), CARD)
    session = Session(extra=(str(tmp_path / "model"),))
    demo = ui.build(session)
    steps = [fn for fn in demo.fns.values() if fn.name in ("on_drop", "on_file", "on_clip")]
    assert len(steps) == 3, "dropped, the second picture, a clip"
    assert {fn.concurrency_id for fn in steps} == {"file"}
    assert {fn.concurrency_id for fn in demo.fns.values() if fn.name in ("predict", "look")} == {"slow"}
    dropped = next(fn for fn in steps if fn.name == "on_drop")
    still = tmp_path / "still.png"
    Image.new("RGB", (40, 30), "red").save(still)
    brought = tmp_path / "brought.png"
    Image.new("RGB", (40, 30), "blue").save(brought)
    assert next(fn for fn in steps if fn.name == "on_clip").fn(
        [str(brought)], SimpleNamespace(session_hash="ann")
    )
    for file in (gif, still):
        dropped.fn(str(file), str(tmp_path / "model"), TRAINED, Failed(), SimpleNamespace(session_hash="ann"))

    def again(path):
        raise AssertionError("decoded in the queue of the model")

    for opener in ("open_clip_safely", "open_safely"):
        monkeypatch.setattr(f"explorer.session.{opener}", again)
    for file in (gif, still, brought):
        assert session.look(file, str(tmp_path / "model"), owner="ann").trace().grid.count == 15


def test_no_file_of_a_stranger_is_decoded_where_others_wait_to_look(tmp_path: Path, gif: Path, monkeypatch):
    save(tmp_path / "model", model_of(), CARD)
    name, ann = str(tmp_path / "model"), SimpleNamespace(session_hash="ann", query_params={})
    session = Session(public=True, extra=(name,))
    demo = ui.build(session)
    handlers = {fn.name: fn.fn for fn in demo.fns.values()}
    Image.new("RGB", (40, 30), "red").save(still := tmp_path / "still.png")

    def chosen(file: Path) -> ui.Screen:
        return handlers["on_show"](str(file), name, TRAINED, None, None, Edits(), Failed(), ann)

    for file, opener in ((gif, "open_clip_safely"), (still, "open_safely")):
        decode = getattr(session_module, opener)
        monkeypatch.setattr(session_module, opener, None)
        assert chosen(file) == ui.UNCHANGED, "it is still in the queue of files"
        with pytest.raises(gr.Error, match="choose it once more"):
            handlers["on_target"](Shown(str(file), name), gr.EventData(None, {"target": 1}), ann)
        monkeypatch.setattr(session_module, opener, decode)
        handlers["on_drop"](str(file), name, TRAINED, Failed(), ann)
        monkeypatch.setattr(session_module, opener, None)
        session.results.max_bytes = 0  # where memory has no room, it is in a file
        session.remember("large", lambda: b"x")
        assert chosen(file).shown == Shown(str(file), name, TRAINED)
        session.results.max_bytes = 2**31
        monkeypatch.setattr(session_module, opener, decode)
    example = next(iter(ui.examples_of(session).values())).path
    assert chosen(example).shown.picture == str(example), "the examples are small, and known"
