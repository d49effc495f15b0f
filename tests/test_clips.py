"""Clips from files: the frames that were written come back, evenly chosen; the rest is refused in a word."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vit.card import Card
from vit.clips import (
    Clip,
    ClipError,
    as_clip,
    is_clip,
    open_clip,
    open_clip_safely,
    preprocess_clip,
    sampled,
    save_animated,
    thinned,
)
from vit.pictures import PictureError, preprocess

GREYS = np.arange(10, 250, 20)  # one per frame
FRAMES = np.broadcast_to(GREYS[:, None, None, None], (12, 32, 48, 3)).astype(np.uint8)


def write_video(path: Path, code: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (48, 32))
    assert writer.isOpened()
    for frame in FRAMES:
        writer.write(frame)
    writer.release()
    return path


def write_gif(path: Path) -> Path:
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path


@pytest.fixture(params=["mp4", "webm", "gif", "webp"])
def file(request, tmp_path: Path) -> Path:
    path = tmp_path / f"clip.{request.param}"
    if request.param == "gif":
        return write_gif(path)
    if request.param == "webp":
        save_animated(Clip(FRAMES, tuple(i / 10 for i in range(12))), path)
        return path
    return write_video(path, {"mp4": "mp4v", "webm": "VP80"}[request.param])


@pytest.mark.parametrize("opened", [open_clip, open_clip_safely])
def test_every_kind_gives_the_frames_that_it_holds(file: Path, opened):
    assert is_clip(file)
    clip = opened(file, 6)
    assert clip.frames.shape == (6, 32, 48, 3)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), GREYS[1::2], atol=4)  # video loses a little
    np.testing.assert_allclose(clip.times, [0.1, 0.3, 0.5, 0.7, 0.9, 1.1], atol=1e-6)
    assert opened(file, 100, largest=24).frames.shape == (12, 16, 24, 3)


def test_what_browsers_are_shown_of_a_clip_is_the_clip(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    save_animated(Clip(noise, (0, 0.2, 0.5, 0.6, 1.0)), tmp_path / "kept.webp")
    back = open_clip(tmp_path / "kept.webp", 32)
    np.testing.assert_array_equal(back.frames, noise)
    np.testing.assert_allclose(back.times, (0, 0.2, 0.5, 0.6, 1.0))


def test_frames_are_sampled_evenly():
    clip = Clip(FRAMES, tuple(range(12)))
    assert sampled(clip, 4).times == (1, 4, 7, 10) and thinned(clip, 4).times == (1, 4, 7, 10)
    assert sampled(Clip(FRAMES[:2], (0, 1)), 4).times == (0, 0, 1, 1), "some stand for two"
    assert thinned(Clip(FRAMES[:2], (0, 1)), 4).times == (0, 1)


def test_every_frame_is_prepared_as_a_picture_is():
    card, clip = Card(name="tiny", image_size=(16, 16), mean=(0.1, 0.2, 0.3)), Clip(FRAMES, tuple(range(12)))
    one = preprocess(Image.fromarray(FRAMES[3]), card)
    torch.testing.assert_close(preprocess_clip(clip, card)[3], one, rtol=0, atol=0)


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "one.png")
    assert not is_clip(tmp_path / "one.png")
    assert as_clip(tmp_path / "one.png").frames.shape == (1, 32, 48, 3)
    (tmp_path / "none").mkdir()
    with pytest.raises(ClipError, match="there is none"):
        as_clip(tmp_path / "none")


@pytest.mark.parametrize("brand", ["avif", "heic", "heix", "mif1", "crx "])
def test_a_still_that_begins_as_a_video_does_is_a_picture(tmp_path: Path, brand: str):
    path = tmp_path / "still.avif"
    Image.fromarray(FRAMES[0]).save(path)
    path.write_bytes(path.read_bytes().replace(b"ftypavif", b"ftyp" + brand.encode(), 1))
    assert not is_clip(path)
    if brand in ("avif", "mif1"):
        assert as_clip(path).frames.shape == (1, 32, 48, 3)
    else:
        with pytest.raises(PictureError, match="save it as JPEG"):
            as_clip(path)


@pytest.mark.parametrize("opened", [open_clip, open_clip_safely])
def test_an_avif_that_moves_is_a_clip(tmp_path: Path, opened):
    path = tmp_path / "moving.avif"
    first, *others = map(Image.fromarray, FRAMES)
    first.save(path, save_all=True, append_images=others, duration=100)
    assert is_clip(path)
    clip = opened(path, 6)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), GREYS[1::2], atol=4)
    np.testing.assert_allclose(clip.times, [0.1, 0.3, 0.5, 0.7, 0.9, 1.1], atol=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\0\0\0\x18ftypmp42" + b"x" * 500, b"\x1a\x45\xdf\xa3", b"text"]
)
def test_garbage_is_refused_in_a_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for opened in (open_clip, open_clip_safely):
        with pytest.raises(ClipError, match=r"^[A-Z][^/]*\.$"):
            opened(path, 8)


@pytest.mark.parametrize(
    "kind, code, said",
    [
        ("mp4", b"av01", "encoded as AV1 and"),
        ("mp4", b"vvc1", r"encoded as H\.266"),
        ("mp4", b"xyz9", "encoded as XYZ9 and"),
        ("mp4", b"encv", "are encrypted and"),
        ("mp4", b"avc1", "damaged or cut short: none"),
        ("mp4", b"\1\xff<>", "damaged, cut short or of a kind"),
        ("webm", b"V_AV1", "encoded as AV1 and"),
        ("avi", b"QQQQ", "encoded as QQQQ and"),
    ],
)
def test_pictures_that_cannot_be_decoded_are_named(tmp_path: Path, kind: str, code: bytes, said: str):
    own = {"mp4": b"mp4v", "webm": b"V_VP8", "avi": b"MJPG"}[kind]
    path = write_video(tmp_path / f"clip.{kind}", {"webm": "VP80"}.get(kind, own.decode()))
    path.write_bytes(path.read_bytes().replace(b"esds", b"free").replace(own, code))
    for opened in (open_clip, open_clip_safely):
        with pytest.raises(ClipError, match=rf"^[A-Z][^<]*{said}[^<]*\.$"):
            opened(path, 8)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_file_of_sound_alone_is_said_to_have_no_video(tmp_path: Path, kind: str):
    path = write_video(tmp_path / f"clip.{kind}", {"mp4": "mp4v", "webm": "VP80"}[kind])
    content = (
        path.read_bytes().replace(b"vide", b"soun").replace(b"mp4v", b"mp4a").replace(b"V_VP8", b"A_AAC")
    )
    path.write_bytes(content)
    with pytest.raises(ClipError, match="There is no video in this file"):
        open_clip(path, 8)


def test_a_clip_that_is_too_long_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vit.clipdecoder.MAX_SECONDS", 1.0)
    with pytest.raises(ClipError, match="too long"):
        open_clip(write_video(tmp_path / "long.mp4", "mp4v"), 4)
    monkeypatch.setattr("vit.clipdecoder.MAX_FRAMES", 5)
    with pytest.raises(ClipError, match="too long"):
        open_clip(write_gif(tmp_path / "long.gif"), 4)
