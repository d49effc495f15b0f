"""Generated shapes follow from seed and index, are where the mask says, and differ in their outline alone."""

import numpy as np

from vit.shapes import SHAPES_CLASSES, shapes_sample


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
