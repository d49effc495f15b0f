"""Pictures of every odd kind become what a person expects; data sets from folders, torchvision, nothing."""

import io
import pickle
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from vit.card import Card
from vit.data import (
    CIFAR10_CLASSES,
    IMAGENETTE_CLASSES,
    SHAPES_CLASSES,
    DataError,
    PictureError,
    augment,
    denormalize,
    find_pictures,
    load_split,
    normalize,
    open_picture,
    preprocess,
    resize_all,
    shapes_sample,
    to_pixels,
    to_rgb,
)

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIT_DATA", raising=False)


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


# One picture


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
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    png += struct.pack(">I", 2) + b"IDAT" + b"xx" + struct.pack(">I", zlib.crc32(b"IDATxx"))
    with pytest.raises(PictureError, match="more than 100 million pixels"):
        open_picture(io.BytesIO(png))


def test_an_icon_is_refused_because_pillow_decodes_it_before_it_tells_its_size():
    with pytest.raises(PictureError, match="of a kind that cannot be read"):
        open_picture(saved(two_tone().resize((32, 32)), "ICO"))


def broken_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    jpeg, png = (saved(Image.fromarray(noise), kind).getvalue() for kind in ("JPEG", "PNG"))
    # turned by 90 degrees, with 70 000 numbers per pixel, which no 16 bits of a new header can hold
    exif = struct.pack("<6s2sHIHHHIIHHIII", b"Exif", b"II", 42, 8, 2, 0x112, 3, 1, 6, 0x115, 4, 1, 70_000, 0)
    return {
        "turned.jpg": saved(two_tone(), "JPEG", exif=exif).getvalue(),
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


def test_a_missing_file_is_a_picture_error(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        open_picture(tmp_path / "nothing.png")


@pytest.mark.parametrize("size", [(225, 300), (900, 450), (1800, 3000), (224, 224), (999, 1000)])
@pytest.mark.parametrize("side", [224, 448])
def test_the_crop_stays_inside_the_picture(size, side):
    """225 / 224 * 224 is more than 225."""
    assert (to_pixels(Image.new("RGB", size, WHITE), (side, side)) == 255).all()


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


# Data sets


def make_folder(root: Path, splits=("train", "val"), classes=("cat", "dog"), count: int = 4) -> Path:
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 10), (100 * label, 20 * i, 0)).save(folder / f"{i}.png")
    return root


def test_an_image_folder_is_read_once_and_then_from_the_cache(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "pets")
    split = load_split(str(root), "train", (8, 8))
    assert split.class_names == ("cat", "dog") and split.labels.tolist() == [0] * 4 + [1] * 4
    assert split.images.shape == (8, 3, 8, 8) and split.images.dtype == torch.uint8
    assert split.images[:, 0].flatten(1).float().mean(1).tolist() == [0.0] * 4 + [100.0] * 4
    monkeypatch.setattr("vit.data.open_picture", lambda path: pytest.fail("decoded twice"))
    again = load_split(str(root), "train", (8, 8))
    assert torch.equal(again.images, split.images) and torch.equal(again.labels, split.labels)


def test_a_folder_that_has_changed_is_read_again(tmp_path):
    root = make_folder(tmp_path / "pets")
    load_split(str(root), "train", (8, 8))
    Image.new("RGB", (12, 10), WHITE).save(root / "train" / "cat" / "0.png")
    assert load_split(str(root), "train", (8, 8)).images[0].min() == 255


def test_the_cache_keeps_one_file_and_no_torn_one(tmp_path):
    root = make_folder(tmp_path / "pets")
    load_split(str(root), "train", (8, 8))
    (kept,) = (tmp_path / "cache" / "decoded").iterdir()
    kept.with_suffix(".1.part").write_bytes(b"of a run that was killed")
    Image.new("RGB", (12, 10), WHITE).save(root / "train" / "cat" / "0.png")
    load_split(str(root), "train", (8, 8))
    assert list(kept.parent.iterdir()) == [kept]


def test_a_link_to_nowhere_is_no_picture(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    assert len(load_split(str(root), "train", (8, 8))) == 8


def test_a_folder_with_one_split_has_that_split_only(tmp_path):
    root = make_folder(tmp_path / "pets", splits=("test",))
    assert load_split(str(root), "test", (8, 8)).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="has no train/ or training/"):
        load_split(str(root), "train", (8, 8))


def test_without_a_split_every_tenth_picture_is_held_out(tmp_path):
    root = make_folder(tmp_path / "all", splits=(".",), count=20)
    train, test = (find_pictures(str(root), split)[0] for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 4) and not {*train.files} & {*test.files}


def test_a_corrupt_picture_is_left_out_and_named(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "dog" / "1.png").write_bytes(b"no picture")
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning) as warned:
            split = load_split(str(root), "train", (8, 8))
        assert len(split) == 7
        said = [str(warning.message) for warning in warned]
        assert any("1.png" in line for line in said) and said[-1].startswith("1 picture")


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (
            lambda root: [file.unlink() for file in (root / "train" / "dog").iterdir()],
            "dog has no train pictures",
        ),
        (
            lambda root: [file.write_bytes(b"x") for file in (root / "train" / "dog").iterdir()],
            "without a single",
        ),
        (lambda root: root.rename(root.with_name("elsewhere")), "There is no folder"),
        (lambda root: (root / "train").rename(root / "val" / "cat" / "train"), "at least two folders"),
    ],
)
def test_an_unusable_folder_is_one_sentence(spoil, sentence, tmp_path):
    root = make_folder(tmp_path / "pets")
    if "at least" in sentence:
        for split in ("train", "val"):
            for file in (root / split / "dog").iterdir():
                file.unlink()
            (root / split / "dog").rmdir()
    else:
        spoil(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=sentence):
            load_split(str(root), "train", (8, 8))


def test_a_folder_named_by_vit_data_is_taken_before_any_download(tmp_path, monkeypatch):
    make_folder(tmp_path / "imagenette", classes=("n01440764", "n02102040"))
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    assert load_split("imagenette", "test", (8, 8)).class_names == ("tench", "English springer")


def test_cifar10_as_torchvision_keeps_it(tmp_path):
    """The very files that torchvision downloads, with few pictures in them."""
    base = tmp_path / "cache" / "downloads" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels[name] = rng.integers(0, 255, (10, 3072), np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": list(range(10))}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
        train, test = (load_split("cifar10", split, (32, 32)) for split in ("train", "test"))
    assert (len(train), len(test)) == (50, 10) and train.class_names == CIFAR10_CLASSES
    assert torch.equal(test.images.flatten(1), torch.from_numpy(pixels["test_batch"]))
    assert test.labels.tolist() == list(range(10))


def test_imagenette_is_unpacked_again_where_it_was_cut_short(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "downloads" / "imagenette2-160"
    (folder / "train" / "left behind").mkdir(parents=True)

    def unpack(root, size, download):
        make_folder(root / "imagenette2-160", classes=tuple(IMAGENETTE_CLASSES), count=1)
        for file in folder.rglob("*.png"):
            Image.open(file).save(file.with_suffix(".JPEG"))
            file.unlink()

    monkeypatch.setattr("vit.data.IMAGENETTE_COUNT", 20)
    monkeypatch.setattr("torchvision.datasets.Imagenette", unpack)
    split = load_split("imagenette", "train", (8, 8))
    assert split.class_names == tuple(IMAGENETTE_CLASSES.values())
    assert split.labels.tolist() == list(range(10))
    monkeypatch.setattr("torchvision.datasets.Imagenette", lambda *_, **__: pytest.fail("unpacked twice"))
    assert len(load_split("imagenette", "test", (8, 8))) == 10


def test_no_network_is_one_sentence(monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded \(no route to host\).*VIT_DATA"):
        load_split("cifar10", "train", (32, 32))


# Shapes


def test_shapes_follow_from_seed_and_index_alone():
    for index in (0, 5, 11):
        (first, label, mask), (again, *_) = shapes_sample(3, index), shapes_sample(3, index)
        assert np.array_equal(first, again) and label == index % len(SHAPES_CLASSES)
        assert mask.shape == (64, 64) and mask.dtype == bool and 40 < mask.sum() < 1400
        assert not np.array_equal(first, shapes_sample(4, index)[0])


def test_a_shape_stands_out_from_what_is_around_it():
    """The mask is where the object is: its colours differ from those just outside."""
    apart = []
    for index in range(40):
        picture, _, mask = shapes_sample(0, index)
        pixels = np.asarray(picture, np.float64)
        apart.append(np.abs(pixels[mask].mean(0) - pixels[~mask].mean(0)).sum())
    assert np.mean(apart) > 100 and np.mean(np.array(apart) > 40) > 0.9


def test_nothing_but_the_outline_tells_the_class():
    """The mean place is the same for all classes, within chance."""
    samples = [shapes_sample(1, index) for index in range(320)]
    places = np.array([np.argwhere(mask).mean(0) for *_, mask in samples])
    labels = np.array([label for _, label, _ in samples])
    means = np.array([places[labels == label].mean(0) for label in range(8)])
    assert np.abs(means - 32).max() < 6


# Augmentation


def test_augment_without_changes_is_the_picture():
    images = torch.randint(0, 256, (3, 3, 6, 10), dtype=torch.uint8)
    assert torch.allclose(augment(images, (6, 10), flip=False), images / 255, atol=1e-5)


def test_augment_flips_half_of_the_pictures():
    images = torch.arange(10, dtype=torch.uint8).expand(400, 3, 4, 10)
    flipped = augment(images, (4, 10))[:, 0, 0, 0] > 0.02
    assert 140 < flipped.sum() < 260


def test_augment_is_decided_by_the_generator_and_differs_between_pictures():
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(4, -1, -1, -1)
    changes = dict(min_area=0.3, shift=0.1, rotation=15, colour=0.3, cutout=0.3)
    first = [torch.manual_seed(5), augment(images, (12, 12), **changes)][1]
    again = [torch.manual_seed(5), augment(images, (12, 12), **changes)][1]
    assert torch.equal(first, again) and first.shape == (4, 3, 12, 12)
    assert first.min() >= 0 and first.max() <= 1
    assert all((first[i] - first[j]).abs().mean() > 0.01 for i in range(4) for j in range(i))


def test_random_crops_stay_inside_the_picture():
    """Without a shift, no mirrored edge: a ramp goes on rising from edge to edge."""
    ramp = torch.linspace(0, 255, 64).to(torch.uint8).expand(200, 3, 64, 64)
    row = augment(ramp, (16, 16), min_area=0.2, flip=False)[:, 0, 8]
    assert (row.diff(dim=1) > 0).all()  # a mirrored edge would turn the slope


def test_a_shift_alone_moves_whole_pixels():
    """Half a pixel would blur all that is learned from, and nothing that is tested on."""
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    values = set(picture[0].flatten().tolist())
    moved = augment(picture.expand(50, -1, -1, -1), (16, 16), shift=0.25, flip=False)[:, 0] * 255
    whole = moved.round()
    assert set(whole.flatten().tolist()) <= values and (moved - whole).abs().max() < 1e-3
    assert len({tuple(m.flatten().tolist()) for m in whole}) > 20


def test_a_turned_picture_stays_sharp():
    """Noise keeps more of its contrast than bilinear sampling leaves it: 0.88 instead of 0.71."""
    noise = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    assert augment(noise, (32, 32), rotation=10).std() / (noise / 255).std() > 0.82


@pytest.mark.parametrize("min_area", [0.3, 0.75, 0.99])
def test_a_crop_is_never_smaller_than_asked(min_area):
    """A ramp in both directions: how far it goes tells how much of the picture the crop shows."""
    ramp = torch.linspace(0, 255, 256).to(torch.uint8)
    seen = []
    for picture in (ramp.expand(200, 3, 256, 256), ramp[:, None].expand(200, 3, 256, 256)):
        torch.manual_seed(0)  # the same crops
        x = augment(picture, (64, 64), min_area=min_area, flip=False)[:, 0]
        ends = (x[:, 32, -1] - x[:, 32, 0], x[:, -1, 32] - x[:, 0, 32])
        seen.append(torch.stack(ends).amax(0) * 64 / 63)
    area = seen[0] * seen[1]
    assert min_area - 0.02 < area.min() < min_area + 0.1 and area.max() > 0.9


def test_cutout_takes_its_share():
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    holes = (augment(white, (32, 32), cutout=0.5) == 0.5).float().mean((1, 2, 3))
    assert holes.max() == 0.25 and 0.1 < holes.mean() < 0.2


def test_small_pictures_are_averages_not_samples():
    stripes = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    stripes[..., ::2] = 254
    assert (resize_all(stripes, (4, 4))[..., 1:-1] == 127).all()


def test_to_pixels_is_what_the_eye_sees():
    pixels = to_pixels(two_tone(), (4, 8))
    assert (
        pixels.shape == (3, 4, 8)
        and pixels[:, 0, 0].tolist() == list(RED)
        and pixels[:, 3, 7].tolist() == list(BLUE)
    )


def test_pictures_prepared_otherwise_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "cache"))
    root = str(make_folder(tmp_path / "pets"))
    for how in ({}, dict(crop_pct=0.5), dict(interpolation="nearest")):
        load_split(root, "train", (8, 8), **how)
    assert load_split(root, "train", (4, 4)).images.shape[-2:] == (4, 4)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 4


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
