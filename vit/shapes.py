"""A data set made from nothing: eight outlines on clutter, with the mask of every object."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

SHAPES_CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
SHAPES_SIZE = 64
SHAPES_COUNT = {"train": 16_000, "test": 2_000}


def outlines() -> dict[str, list[np.ndarray]]:
    """The contours of every class, (N, 2) points within the unit circle; a second contour is a hole."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    def polygon(corners: int, radii: Sequence[float] = (1.0,)) -> np.ndarray:
        angle = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.resize(radii, corners)[:, None]

    arm = 0.32
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    cross = [point for i in range(4) for point in np.array(quarter) @ rotation(i * np.pi / 2).T]
    heart = np.stack(
        [
            16 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)),
        ],
        axis=1,
    )
    outer, inner = np.linspace(0.6, 2 * np.pi - 0.6, 40), np.linspace(2 * np.pi - 0.95, 0.95, 40)
    moon = [np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([np.cos(inner), np.sin(inner)], 1) * 0.82]
    moon[1][:, 0] += np.cos(0.6) - 0.82 * np.cos(0.95)
    return {
        "circle": [circle],
        "square": [polygon(4)],
        "triangle": [polygon(3)],
        "star": [polygon(10, (1.0, 0.42))],
        "cross": [np.array(cross)],
        "ring": [circle, circle * 0.55],
        "heart": [heart / 17],
        "moon": [np.concatenate(moon)],
    }


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


OUTLINES = outlines()


def fill(picture: np.ndarray, contours: Sequence[np.ndarray], colour: Sequence[float] | float) -> None:
    """Fill contours given in pixels; where two overlap there is a hole."""
    points = [np.round(contour * 16).astype(np.int32) for contour in contours]  # 4 bits behind the point
    cv2.fillPoly(picture, points, colour, cv2.LINE_AA, shift=4)


def shapes_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A texture of two colours: clouds, stripes, squares or a slope, (size, size, 3) in [0, 255]."""
    y, x = np.mgrid[0:size, 0:size] / size
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(0.08, 0.5), rng.uniform(0, 1)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        cells = int(rng.integers(3, 12))
        blend = cv2.resize(rng.random((cells, cells)), (size, size), interpolation=cv2.INTER_CUBIC)
    elif kind == 1:
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * (along / period + phase))
    elif kind == 2:
        blend = (np.floor(along / period + phase) + np.floor(across / period)) % 2
    else:
        blend = along / 1.5 + 0.3
    first, second = rng.uniform(0, 150, (2, 3))
    second = first + (second - first) * rng.uniform(0.2, 0.8)
    return first + (second - first) * blend[..., None]


def shapes_sample(seed: int, index: int) -> tuple[Image.Image, int, np.ndarray]:
    """(picture 64 x 64, label, mask (64, 64) bool of the object's pixels), always the same for (seed, index).

    Class, colour, size, place, rotation, texture and clutter are drawn independently, so nothing but the
    object's outline tells the class. The clutter has outlines too, of no class: blobs, specks and strokes.
    """
    rng = np.random.default_rng((seed, index))
    size, label = SHAPES_SIZE, index % len(SHAPES_CLASSES)
    picture = shapes_background(rng, size)
    radius = rng.uniform(10, 20)
    centre = rng.uniform(radius + 1, size - radius - 1, 2)

    for _ in range(rng.integers(2, 6)):  # blobs and specks
        corners, reach = int(rng.integers(5, 10)), rng.choice([rng.uniform(1, 3), rng.uniform(3, 7)])
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = reach * rng.uniform(0.4, 1, corners)
        blob = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii[:, None] + rng.uniform(0, size, 2)
        fill(picture, [blob], rng.uniform(0, 200, 3).tolist())

    colour = rng.uniform(60, 255, 3)
    colour[rng.integers(3)] = 255  # an object is brighter than its ground; of what colour says nothing
    spin = rotation(rng.uniform(-0.5, 0.5)) * radius * rng.uniform(0.85, 1.0, 2)
    contours = [contour @ spin.T + centre for contour in OUTLINES[SHAPES_CLASSES[label]]]
    coverage = np.zeros((size, size), np.float64)
    fill(coverage, contours, 1.0)
    fill_colour = colour + rng.uniform(-25, 25) * np.mgrid[0:size, 0:size][rng.integers(2)][..., None] / size
    picture += (fill_colour - picture) * coverage[..., None]

    for _ in range(rng.integers(0, 3)):  # strokes, over the object too
        start, end = rng.uniform(0, size, (2, 2)).round().astype(int).tolist()
        cv2.line(picture, start, end, rng.uniform(0, 200, 3).tolist(), 1, cv2.LINE_AA)
    picture += rng.normal(0, rng.uniform(1, 8), picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), label, coverage > 0.5


class Shapes:
    """`shapes_sample`, numbered. The test split of a seed shares no picture with its training split."""

    def __init__(self, split: str, seed: int = 0):
        self.seed, self.count = 2 * seed + (split == "test"), SHAPES_COUNT[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        picture, label, _ = shapes_sample(self.seed, index)
        return picture, label
