"""Pictures of every odd kind become what a person expects, and what is no picture is one sentence."""

import io
import os
import signal
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from timm.data import create_transform

from vit import decoder, pictures
from vit.card import Card
from vit.decoder import NEEDED
from vit.pictures import (
    PictureError,
    denormalize,
    normalize,
    open_picture,
    open_safely,
    preprocess,
    seen_box,
    to_pixels,
    to_rgb,
)

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


def two_tone(left=RED, right=BLUE) -> Image.Image:
    """8 wide, 4 high."""
    picture = Image.new("RGB", (8, 4), left)
    picture.paste(right, (4, 0, 8, 4))
    return picture


def saved(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def pixel(picture: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    assert picture.mode == "RGB"
    return picture.getpixel((x, y))


@pytest.mark.parametrize(
    "orientation, size, first", [(1, (8, 4), RED), (3, (8, 4), BLUE), (6, (4, 8), RED), (8, (4, 8), BLUE)]
)
def test_exif_orientation_is_applied(orientation, size, first):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(saved(two_tone(), "PNG", exif=exif))
    assert picture.size == size and pixel(picture) == first


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_over_white(mode):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    if mode == "PA":  # Pillow cannot save this one; it comes out of conversions
        assert pixel(to_rgb(clear.convert("PA"))) == WHITE
    else:
        assert pixel(open_picture(saved(clear.convert(mode), "PNG"))) == WHITE


def test_half_transparent_black_is_grey():
    picture = open_picture(saved(Image.new("RGBA", (2, 2), (0, 0, 0, 127)), "PNG"))
    assert pixel(picture) == GREY


def test_palette_with_a_transparent_colour():
    picture = two_tone().quantize(2)
    clear = picture.getpixel((0, 0))
    opened = open_picture(saved(picture, "PNG", transparency=clear))
    assert pixel(opened) == WHITE and pixel(opened, 7) == BLUE


def png(depth: int, kind: int, row: list[int], clear: list[int]) -> bytes:
    """Four such rows of samples, as Pillow does not write them: 16 bits, and one colour that is not there."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + crc

    def wide(numbers: list[int], size: int) -> bytes:
        return b"".join(number.to_bytes(size, "big") for number in numbers)

    channels = 3 if kind == 2 else 1
    head = wide([len(row) // channels, 4], 4) + bytes([depth, kind, 0, 0, 0])
    pixels = zlib.compress((b"\0" + wide(row, depth // 8)) * 4)
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", wide(clear, 2)) + chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize("largest", [None, 8])
@pytest.mark.parametrize(
    "depth, kind, row, clear",
    [
        (8, 0, [0] * 7 + [90] * 9, [0]),
        (8, 2, [0] * 21 + [90] * 27, [0, 0, 0]),
        (16, 0, [300] * 7 + [90 * 257] * 9, [300]),
        (16, 2, [30000, 10000, 5] * 7 + [90 * 257] * 27, [30000, 10000, 5]),
    ],
)
def test_a_colour_that_is_not_there_is_white_at_any_size(largest, depth, kind, row, clear):
    seen = np.asarray(open_picture(io.BytesIO(png(depth, kind, row, clear)), largest))
    assert seen[0, 0].tolist() == [255] * 3 and seen[0, -1].tolist() == [90] * 3
    assert seen.min() > 80, "nothing of it is mixed with what is beside it"


@pytest.mark.parametrize(
    "mode, kind",
    [("1", "PNG"), ("L", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("RGB", "AVIF")],
)
def test_other_modes_become_rgb(mode, kind):
    light = Image.new("RGB", (4, 4), WHITE).convert(mode)
    assert min(pixel(open_picture(saved(light, kind)))) >= 253


def test_sixteen_bits_keep_their_scale():
    ramp = np.array([[0, 65535 // 2, 65535]], np.uint16)
    picture = open_picture(saved(Image.fromarray(ramp), "PNG"))
    assert [pixel(picture, x)[0] for x in range(3)] == [0, 127, 255]


@pytest.mark.filterwarnings("error")  # numpy only warns when it divides by zero
@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),  # 8 bits in 32
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255]),  # 16 bits in 32
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[-100.0, 0.0, 104.0]], np.float32), [0, 125, 255]),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0.0, 0.5, 1.001]], np.float32), [0, 128, 255]),  # resizing overshoots
        (np.array([[-5.0, -5.0, -5.0]], np.float32), [0, 0, 0]),
        (np.array([[70000, 70000, 70000]], np.int32), [0, 0, 0]),
    ],
)
def test_wide_and_float_greys_are_brought_to_eight_bits(values, expected):
    picture = open_picture(saved(Image.fromarray(values), "TIFF"))
    assert [pixel(picture, x)[0] for x in range(3)] == expected


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    picture = open_picture(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixel(picture) == RED


def test_a_picture_of_one_pixel_and_a_very_long_one_are_fine():
    card = Card("x", image_size=(32, 48))
    for size in ((1, 1), (1, 100_000), (100_000, 1)):
        image = preprocess(Image.new("RGB", size, RED), card)
        assert image.shape == (3, 32, 48) and torch.allclose(image[0], torch.tensor(1.0))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_100, 60_000])  # above our limit, above Pillow's own
def test_a_huge_picture_is_refused_before_it_is_decoded(side):
    with pytest.raises(PictureError, match="more than 100 million pixels"):
        open_picture(io.BytesIO(first_bytes_of(side)))


def first_bytes_of(side: int) -> bytes:
    """The beginning of a PNG file of that many pixels either way, RGB."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    png += struct.pack(">I", 2) + b"IDAT" + b"xx" + struct.pack(">I", zlib.crc32(b"IDATxx"))
    return png


def test_an_icon_is_refused_because_pillow_decodes_it_before_it_tells_its_size():
    with pytest.raises(PictureError, match="of a kind that cannot be read"):
        open_picture(saved(two_tone().resize((32, 32)), "ICO"))


@pytest.mark.parametrize(
    "head, said",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, .* JPEG, PNG or WebP"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture"),
        (b"<svg xmlns=", "is a drawing"),
        (b"%PDF-1.7", "is a PDF"),
        (b"\x30\x26\xb2\x75\x8e\x66", r"is a Windows Media video, .* MP4 \(H\.264\), WebM \(VP9\) or GIF"),
        (b"\0\0\1\xba\x21", "is an MPEG video"),
        (b"\0\0\0\x08wide", "is an old QuickTime video"),
    ],
)
def test_what_is_no_picture_for_us_is_said_to_be_what_it_is(tmp_path, head: bytes, said: str):
    (tmp_path / "file").write_bytes(head + bytes(200))
    for source in (tmp_path / "file", io.BytesIO(head + bytes(200))):
        with pytest.raises(PictureError, match=f"^This file {said}"):
            open_picture(source)
    with pytest.raises(PictureError, match=f"^This file {said}"):
        open_safely(tmp_path / "file")


def broken_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    jpeg, png = (saved(Image.fromarray(noise), kind).getvalue() for kind in ("JPEG", "PNG"))
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "damaged.png": png[:80] + bytes(200) + png[280:],
        "text.jpg": b"this is a text, whatever its name says",
        "empty.png": b"",
        "header.gif": b"GIF89a",
        "page.html": b"<html><svg></svg></html>",
    }


@pytest.mark.parametrize("name", broken_files())
def test_what_is_no_picture_is_one_sentence_without_paths(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(broken_files()[name])
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    sentence = str(caught.value)
    assert str(tmp_path) not in sentence and "\n" not in sentence and sentence.endswith(".")


def exif_of(entry: bytes, extra: bytes = b"") -> bytes:
    """An EXIF block that says "turned by 90 degrees", and one thing more."""
    turned = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + turned + entry + bytes(4) + extra


def odd_metadata() -> dict[str, bytes]:
    def png(*texts: tuple[str, str], **options) -> bytes:
        about = PngImagePlugin.PngInfo()
        for name, text in texts:
            about.add_text(name, text, zip=True)
        return saved(two_tone(), "PNG", pnginfo=about, **options).getvalue()

    def jpeg(exif: bytes) -> bytes:
        plain = saved(two_tone(), "JPEG").getvalue()
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]

    garbage = b"Exif\0\0garbage!"
    return {
        "garbage.jpg": jpeg(garbage),
        "garbage.webp": saved(two_tone(), "WEBP", exif=garbage).getvalue(),
        "garbage.png": png(exif=garbage),
        "raw profile.png": png(("Raw profile type exif", "\nexif\n   4\nzzzz\n")),
        "long text.png": png(("workflow", "a" * 2_000_000)),
        "turned, 70 000 numbers.jpg": jpeg(exif_of(struct.pack(">HHII", 0x115, 4, 1, 70_000))),
        "turned, negative.jpg": jpeg(exif_of(struct.pack(">HHIi", 0xA005, 9, 1, -1))),
        "turned, -1/0.jpg": jpeg(exif_of(struct.pack(">HHII", 0x11A, 10, 1, 38), struct.pack(">ii", -1, 0))),
    }


@pytest.mark.parametrize("name", odd_metadata())
def test_garbage_beside_the_pixels_is_no_fault_of_theirs(name):
    picture = open_picture(io.BytesIO(odd_metadata()[name]))
    assert picture.size == ((4, 8) if name.startswith("turned") else (8, 4)) and picture.info == {}
    assert np.array_equal(to_rgb(picture), picture)  # nothing is turned, or read, a second time


def test_a_picture_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(PictureError, match="may not be read"):
        open_picture(tmp_path / "x.png")


def test_a_missing_file_is_a_picture_error(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        open_picture(tmp_path / "nothing.png")


@pytest.mark.parametrize("size", [(225, 300), (900, 450), (1800, 3000), (224, 224), (999, 1000)])
@pytest.mark.parametrize("side", [224, 448])
def test_the_crop_stays_inside_the_picture(size, side):
    """225 / 224 * 224 is more than 225."""
    assert (to_pixels(Image.new("RGB", size, WHITE), (side, side)) == 255).all()


def test_the_part_that_is_seen_is_all_that_is_read() -> None:
    left, top, right, bottom = seen_box((300, 100), (50, 50), 0.5)
    assert (left, top, right, bottom) == (125, 25, 175, 75)
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste(WHITE, (125, 25, 175, 75))
    assert (to_pixels(picture, (50, 50), 0.5) == 255).all()
    assert seen_box((300, 100), (100, 300)) == (0, 0, 300, 100)


def test_preprocess_crops_the_centre_as_the_card_says():
    """Resize and crop in one step agrees with torchvision's two steps, on noise, which forgives nothing."""
    from torchvision.transforms import v2

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 192, 3), np.uint8))
    card = Card("x", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.875, image_size=(28, 28))
    steps = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(28), v2.ToImage()])
    reference = normalize(steps(picture), card)
    level = 1 / 255 / min(card.std)
    assert (preprocess(picture, card) - reference).abs().max() < 1.01 * level
    for other in (dict(crop_pct=0.9), dict(interpolation="lanczos"), dict(interpolation="bilinear")):
        assert (preprocess(picture, replace(card, **other)) - reference).abs().max() > 5 * level


def test_denormalize_undoes_normalize():
    card = Card("x", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    assert torch.allclose(denormalize(normalize(pixels, card), card) * 255, pixels.float(), atol=1e-3)


def test_to_pixels_is_what_the_eye_sees():
    pixels = to_pixels(two_tone(), (4, 8))
    assert (
        pixels.shape == (3, 4, 8)
        and pixels[:, 0, 0].tolist() == list(RED)
        and pixels[:, 3, 7].tolist() == list(BLUE)
    )


@pytest.mark.parametrize(
    "side, crop_pct", [(224, 0.875), (224, 0.9), (64, 0.95), (96, 0.96), (48, 1.0), (64, 64 / 73)]
)
@pytest.mark.parametrize("size", [(256, 256), (131, 200), (517, 90), (33, 47)])
def test_pixels_are_timms(size: tuple[int, int], side: int, crop_pct: float) -> None:
    """Resized and cropped by the same whole pixels; two resizings at once round a little differently."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size)
    theirs = create_transform(
        (3, side, side), interpolation="bicubic", crop_pct=crop_pct, mean=(0,) * 3, std=(1,) * 3
    )
    off = (theirs(picture) * 255).round() - to_pixels(picture, (side, side), crop_pct).float()
    assert off.abs().max() <= 2 and off.abs().mean() < 0.05


# What strangers send


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values)


def test_a_strangers_picture_is_what_open_picture_makes_of_it():
    for kind, channels in (("PNG", 4), ("JPEG", 3)):
        file = saved(noise(60, 40, channels), kind).getvalue()
        assert np.array_equal(open_safely(file), open_picture(io.BytesIO(file)))
    for name, file in broken_files().items():
        with pytest.raises(PictureError) as here:
            open_picture(io.BytesIO(file))
        with pytest.raises(PictureError) as there:
            open_safely(io.BytesIO(file))
        assert str(here.value) == str(there.value), name


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16", "CMYK"])
def test_a_large_picture_is_reduced_and_looks_the_same(mode):
    wide = two_tone(GREEN).resize((400, 200), Image.Resampling.NEAREST)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(wide.convert("L")).astype(np.uint16) * 257)
    else:
        picture = wide.quantize(2) if mode == "P" else wide.convert(mode)
    file = saved(picture, "TIFF" if mode == "CMYK" else "PNG").getvalue()
    small, whole = open_safely(file, largest=100), open_picture(io.BytesIO(file))
    assert small.size == (100, 50)
    off = np.asarray(small, float) - np.asarray(whole.resize((100, 50), Image.Resampling.BOX), float)
    bound = 60 if mode == "1" else 3  # dots of black and white are averaged in another way
    assert np.abs(off[:, 5:45]).max() < bound and np.abs(off[:, 55:95]).max() < bound


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last pass comes again and again."""
    whole = saved(noise(64, 64), "JPEG", progressive=True).getvalue()
    begin = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[begin:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_many_passes_is_refused_before_it_is_decoded():
    with pytest.raises(PictureError, match="more than 100 passes"):
        open_safely(many_scans(200))
    assert open_safely(saved(noise(64, 64), "JPEG", progressive=True)).size == (64, 64)


def test_a_tiff_of_countless_pieces_is_refused_before_it_is_decoded():
    file = saved(Image.new("1", (1, 20_001)), "TIFF", tiffinfo={278: 1}).getvalue()  # one row per strip
    with pytest.raises(PictureError, match="more than 20000 pieces"):
        open_safely(file)


def test_a_picture_that_takes_too_long_ends_and_the_next_one_is_fine(monkeypatch):
    slow = saved(noise(2000, 2000), "PNG", compress_level=1)
    monkeypatch.setattr(pictures, "SECONDS", 0.02)
    with pytest.raises(PictureError, match=r"takes more than 0\.02 s and 300 MB to decode"):
        open_safely(slow)
    monkeypatch.undo()
    assert open_safely(saved(two_tone(), "PNG")).size == (8, 4)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is limited on Linux alone")
def test_a_picture_that_takes_too_much_memory_is_one_sentence():
    heavy = first_bytes_of(9500)
    for _ in range(2):
        with pytest.raises(PictureError) as caught:
            open_safely(heavy)
        assert str(caught.value) == NEEDED
    large = saved(Image.new("L", (4000, 3000)), "PNG", compress_level=1)
    assert open_safely(large).size == (2048, 1536)  # the next one has all the room again


def test_a_decoder_that_died_is_replaced_and_many_ask_at_once():
    file = saved(noise(300, 200), "PNG").getvalue()
    open_safely(file)
    idle = [worker for worker in pictures.DECODERS.queue if worker]
    assert idle
    for worker in idle:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(open_safely, [file] * 24))
    assert all(np.array_equal(picture, seen[0]) for picture in seen)
    assert pictures.DECODERS.qsize() == pictures.AT_ONCE


def test_a_decoder_that_was_left_half_read_serves_nobody_else(monkeypatch):
    class Short:
        """A pipe to a process for whose answer there is no memory."""

        def __init__(self, pipe):
            self.pipe, self.close = pipe, pipe.close

        def read(self, size):
            if size != decoder.REPLY.size:
                raise MemoryError
            return self.pipe.read(size)

    open_safely(saved(two_tone(), "PNG").getvalue())
    worker = pictures.DECODERS.queue[-1]
    worker.process.stdout = Short(worker.process.stdout)
    with pytest.raises(MemoryError):
        open_safely(saved(two_tone(), "PNG").getvalue())
    assert worker.process.returncode is not None and pictures.DECODERS.qsize() == pictures.AT_ONCE
    assert pixel(open_safely(saved(Image.new("RGB", (10, 10), BLUE), "PNG").getvalue())) == BLUE


def test_a_decoder_that_hangs_is_ended_by_the_clock(monkeypatch):
    file = saved(two_tone(), "PNG").getvalue()
    open_safely(file)
    hanging = pictures.DECODERS.queue[-1]
    os.kill(hanging.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(pictures, "PATIENCE", 0.1)
    monkeypatch.setattr(pictures.Decoder, "__init__", lambda self: pytest.fail("the file was no fault of it"))
    began = time.monotonic()
    with pytest.raises(PictureError, match="takes more than 2 s"):
        open_safely(file)
    assert time.monotonic() - began < 2 and hanging.process.returncode == -signal.SIGKILL


def test_passes_are_counted_up_to_the_end_of_the_picture():
    plain = saved(noise(64, 64), "JPEG", progressive=True).getvalue()
    film = b"\xff\xda" * 500  # telephones put one behind a picture
    assert open_safely(plain + film).size == (64, 64)
    comment = b"\xff\xfe" + (2 + len(film)).to_bytes(2) + film  # so may a comment say
    assert open_safely(plain[:2] + comment + plain[2:]).size == (64, 64)
    hidden = many_scans(200)
    with pytest.raises(PictureError, match="more than 100 passes"):
        open_safely(hidden[:2] + b"\xff\xfe\0\4\xff\xd9" + hidden[2:])  # no end: that of a thumbnail, say
