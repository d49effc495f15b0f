"""Clips follow from seed and index; the movement tells the class, and no single frame does."""

import numpy as np
import pytest

from vit.data import DataError, find_pictures, load_clips
from vit.moves import FRAMES, MOVES_CLASSES, MOVES_COUNT, Moves, moves_sample, moves_states

K = len(MOVES_CLASSES)


def states(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, T, 4) places on their circles and (N,) labels."""
    labels = np.arange(count) % K
    return np.stack([moves_states(np.random.default_rng((seed, i)), k) for i, k in enumerate(labels)]), labels


def on_circles(x: np.ndarray) -> np.ndarray:
    """(N, ...) in [0, 1) -> (N, features): first and second harmonics of each, and their products."""
    turns = 2 * np.pi * x.reshape(len(x), -1)
    first = np.concatenate([np.cos(turns), np.sin(turns), np.cos(2 * turns), np.sin(2 * turns)], axis=1)
    return np.concatenate([np.ones((len(x), 1)), first], axis=1)


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Of a linear classifier, learned on the first half, on the second."""
    half = len(labels) // 2
    weights = np.linalg.lstsq(features[:half], np.eye(K)[labels[:half]], rcond=1e-6)[0]
    return float(((features[half:] @ weights).argmax(1) == labels[half:]).mean())


def test_clips_follow_from_seed_and_index_alone():
    for index in (0, 7, 19):
        (clip, label, masks), (again, *_) = moves_sample(3, index), moves_sample(3, index)
        assert np.array_equal(clip, again) and label == index % K
        assert clip.shape == (FRAMES, 64, 64, 3) and clip.dtype == np.uint8
        assert masks.shape == (FRAMES, 64, 64) and (masks.sum((1, 2)) > 25).all()
        assert not np.array_equal(clip, moves_sample(4, index)[0])
    frames, label = Moves("test")[12]
    assert label == 2 and len(frames) == FRAMES and np.array_equal(frames[3], moves_sample(1, 12)[0][3])


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    return states(10_000)


@pytest.mark.parametrize("t", range(FRAMES))
def test_a_single_frame_says_nothing_of_the_class(many, t):
    """Place, size and turn of the object are all that differs between classes: at chance, at every frame."""
    places, labels = many
    chance, deviation = 1 / K, np.sqrt(0.1 * 0.9 / 5000)
    assert abs(accuracy(on_circles(places[:, t]), labels) - chance) < 4 * deviation
    for k in range(K):  # uniform on each circle, for every class
        mean = np.exp(2j * np.pi * places[labels == k, t]).mean(axis=0)
        assert (np.abs(mean) < 4 / np.sqrt(10_000 / K)).all()


def test_the_movement_says_all(many):
    places, labels = many
    steps = (np.diff(places, axis=1) + 0.5) % 1 - 0.5  # along each circle, the short way
    total, most = steps.sum(axis=1), np.abs(steps).max(axis=(1))
    names = np.array(MOVES_CLASSES)[labels]
    signs = {"goes right": (0, 1), "goes up": (1, -1), "grows": (2, 1), "turns left": (3, -1)}
    for name, (axis, sign) in signs.items():
        of_it = names == name
        assert (sign * total[of_it, axis] > 0.3).all()
        assert (np.delete(most[of_it], axis, axis=1) < 1e-9).all()
    assert (most[names == "stays"] < 1e-9).all()
    back = names == "goes there and back"
    assert (np.abs(total[back]) < 0.35).all() and (most[back].max(axis=1) > 0.04).all()


def test_the_mask_is_where_the_object_is():
    apart = []
    for index in range(20):
        clip, _, masks = moves_sample(0, index)
        inside = clip[2][masks[2]].astype(float).mean(0)
        apart.append(np.abs(inside - clip[2][~masks[2]].astype(float).mean(0)).sum())
    assert np.mean(apart) > 100


def test_clips_are_loaded_as_frames_of_the_size_that_is_asked(monkeypatch):
    monkeypatch.setitem(MOVES_COUNT, "test", 2 * K)
    split = load_clips("moves", "test", (32, 48))
    assert split.images.shape == (2 * K, FRAMES, 3, 32, 48) and split.class_names == MOVES_CLASSES
    assert split.labels.tolist() == [*range(K)] * 2 and len(split.some(3)) == 3
    with pytest.raises(DataError, match="moves holds clips, and this takes pictures"):
        find_pictures("moves", "train")
    with pytest.raises(DataError, match="shapes is no data set of clips"):
        load_clips("shapes", "train", (32, 32))
