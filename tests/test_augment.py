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
