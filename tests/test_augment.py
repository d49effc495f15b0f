"""Augmentation: decided by the generator, different for every picture, never more than was asked."""

import pytest
import torch

from vit.augment import augment, resize_all


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


def test_the_sides_of_a_crop_are_as_unlike_as_asked():
    """From 1 : aspect to aspect : 1, as often this way as that; a large crop has no room for it."""
    ramp = torch.linspace(0, 255, 128).to(torch.uint8).expand(128, 128)
    both = torch.stack([ramp, ramp.T, ramp])  # how far each channel goes tells a side of the crop
    for aspect in (1.0, 3.0):
        x = augment(both.expand(400, -1, -1, -1), (32, 32), min_area=0.1, aspect=aspect, flip=False)
        wide, high = x[:, 0, 16, -2] - x[:, 0, 16, 1], x[:, 1, -2, 16] - x[:, 1, 1, 16]
        unlike, most = (wide / high).log()[wide * high < 0.25], torch.tensor(aspect).log()
        assert len(unlike) > 50 and unlike.abs().max() < most + 0.1 and unlike.mean().abs() < 0.2
        assert unlike.min() < -0.85 * most + 0.1 and unlike.max() > 0.85 * most - 0.1


def test_a_picture_is_turned_by_degrees_either_way():
    """The gradient of a ramp says by how many."""
    ramp = torch.linspace(64, 192, 64).to(torch.uint8).expand(400, 3, 64, 64)
    x = augment(ramp, (64, 64), rotation=20, flip=False)[:, 0, 24:40, 24:40]
    across, down = x.diff(dim=2).mean(dim=(1, 2)), x.diff(dim=1).mean(dim=(1, 2))
    angle = torch.rad2deg(torch.atan2(down, across))
    assert 18 < angle.max() < 21 and -21 < angle.min() < -18 and angle.mean().abs() < 2
    assert angle.std() == pytest.approx(20 / 3**0.5, rel=0.15)  # as likely by any angle


def test_colours_are_changed_as_far_as_asked():
    """(x - 0.5) · contrast + 0.5 · brightness: of grey 0.5 brightness alone is seen, of others contrast."""
    c = 0.4
    grey = torch.full((2000, 3, 2, 2), 128, dtype=torch.uint8)
    bright = augment(grey, (2, 2), colour=c, flip=False)
    assert bright.aminmax() == pytest.approx((0.5 * (1 - c), 0.5 * (1 + c)), abs=0.01)
    assert bright.mean() == pytest.approx(0.5, abs=0.01)
    assert (bright - bright[:, :1]).abs().max() < 1e-6, "grey has no colour that could be stronger"
    steps = torch.tensor([96, 160], dtype=torch.uint8).expand(2000, 3, 2, 2)  # grey, too
    x = augment(steps, (2, 2), colour=c, flip=False)
    contrast = (x[..., 1] - x[..., 0]).mean(dim=(1, 2)) / (64 / 255)
    assert contrast.aminmax() == pytest.approx((1 - c, 1 + c), abs=0.01)
    colours = torch.tensor([108, 128, 148], dtype=torch.uint8).view(1, 3, 1, 1).expand(2000, 3, 2, 2)
    x = augment(colours, (2, 2), colour=c, flip=False)
    both = (x[:, 2] - x[:, 0]).mean(dim=(1, 2)) / (40 / 255)  # contrast and saturation
    assert both.aminmax() == pytest.approx(((1 - c) ** 2, (1 + c) ** 2), abs=0.06)
    assert (x.mean(dim=1) - x[:, 1]).abs().max() < 1e-5, "the mean of the channels stays"


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


def test_all_frames_of_a_clip_are_changed_alike():
    """As one picture whose channels are the frames would be; two clips differ."""
    clips = torch.randint(0, 256, (2, 5, 3, 16, 16), dtype=torch.uint8)
    clips[0, 1:] = clips[0, :1]
    clips[1] = clips[0]
    changes = dict(min_area=0.5, shift=0.1, rotation=10, colour=0.3, cutout=0.3)
    found = [torch.manual_seed(5), augment(clips, (12, 12), **changes)][1]
    assert found.shape == (2, 5, 3, 12, 12)
    assert all(torch.equal(frame, found[0, 0]) for frame in found[0])
    assert (found[0] - found[1]).abs().mean() > 0.01
    still = [torch.manual_seed(5), augment(clips[:, 0], (12, 12), **changes)][1]
    torch.testing.assert_close(found[:, 0], still)
    small = resize_all(clips, (8, 8))
    assert torch.equal(small[1, 3], resize_all(clips[:, 3], (8, 8))[1]) and small.shape == (2, 5, 3, 8, 8)
