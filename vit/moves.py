"""Clips made from nothing: a shape on clutter that moves, grows, turns or stays; no single frame tells which.

T frames of (height, width, 3). What changes from frame to frame runs in a circle: who leaves on the right
comes in on the left, who has grown to the full size begins small again, and a turn is a circle anyway. Where
on its circle a clip begins is drawn uniformly, so one frame by itself looks alike in all classes.
"""

import cv2
import numpy as np
from PIL import Image

from vit.shapes import OUTLINES, SHAPES_SIZE, fill, rotation, shapes_background

MOVES_CLASSES = (
    "goes right",
    "goes left",
    "goes down",
    "goes up",
    "goes there and back",
    "grows",
    "shrinks",
    "turns right",
    "turns left",
    "stays",
)
MOVES_COUNT = {"train": 16_000, "test": 2_000}
FRAMES = 8
OBJECTS = ("square", "triangle", "star", "cross", "heart", "moon")  # those whose turning is seen
RADII = 8.0, 16.0  # pixels
# per frame, of a full circle: of the picture's side, of the octave between the radii, of a shape's symmetry
PACE = {"place": (0.05, 0.09), "size": (0.08, 0.12), "turn": (0.12, 0.22)}
DIM = 0.3  # of the shapes' ground and clutter: what stands still would drown what moves
SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4, "heart": 1, "moon": 1}


def moves_states(rng: np.random.Generator, label: int, frames: int = FRAMES) -> np.ndarray:
    """(T, 4): where the object is on its circles of x, y, size and turn, each in [0, 1)."""
    states = np.repeat(rng.random((1, 4)), frames, axis=0)
    step, name = np.arange(frames), MOVES_CLASSES[label]
    pace = {kind: rng.uniform(*between) for kind, between in PACE.items()}
    axis, sign = int(rng.integers(2)), int(rng.choice((-1, 1)))
    back = frames / 2 + rng.uniform(-1, 1)  # when it turns round
    if name in ("goes right", "goes left"):
        states[:, 0] += step * pace["place"] * (1 if name == "goes right" else -1)
    elif name in ("goes down", "goes up"):
        states[:, 1] += step * pace["place"] * (1 if name == "goes down" else -1)
    elif name == "goes there and back":
        states[:, axis] += np.minimum(step, 2 * back - step) * pace["place"] * sign
    elif name in ("grows", "shrinks"):
        states[:, 2] += step * pace["size"] * (1 if name == "grows" else -1)
    elif name in ("turns right", "turns left"):
        states[:, 3] += step * pace["turn"] * (1 if name == "turns right" else -1)
    return states % 1


def moves_sample(seed: int, index: int) -> tuple[np.ndarray, int, np.ndarray]:
    """(frames (T, 64, 64, 3) uint8, label, masks (T, 64, 64) bool of the object), the same for (seed, index).

    A bar stands in front of half of the scenes, and the object passes behind it. All but the movement is
    drawn without regard to the class.
    """
    rng = np.random.default_rng((seed, index, FRAMES))
    size, label = SHAPES_SIZE, index % len(MOVES_CLASSES)
    states, ground = moves_states(rng, label), DIM * shapes_background(rng, size)
    shape, colour = str(rng.choice(OBJECTS)), rng.uniform(60, 255, 3)
    colour[rng.integers(3)] = 255
    for _ in range(rng.integers(2, 6)):  # blobs, of no shape
        corners = int(rng.integers(5, 10))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(1, 6) * rng.uniform(0.4, 1, corners)
        blob = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii[:, None] + rng.uniform(0, size, 2)
        fill(ground, [blob], (DIM * rng.uniform(0, 200, 3)).tolist())
    at, noise = int(rng.integers(0, size)), rng.uniform(1, 6)
    shade, before, upright = (DIM * rng.uniform(0, 120, 3)).tolist(), rng.random() < 0.5, rng.random() < 0.5
    ends = ((at, -1), (at, size)) if upright else ((-1, at), (size, at))
    clip, masks = np.empty((FRAMES, size, size, 3), np.uint8), np.empty((FRAMES, size, size), bool)
    for t, state in enumerate(states):
        coverage = drawn(shape, state, size)
        if before:  # five pixels wide: an object is never hidden
            cv2.line(coverage, *ends, 0.0, 5)
        frame = ground + (colour - ground) * coverage[..., None]
        if before:
            cv2.line(frame, *ends, shade, 5)
        clip[t] = (frame + rng.normal(0, noise, frame.shape)).clip(0, 255).astype(np.uint8)
        masks[t] = coverage > 0.5
    return clip, label, masks


def drawn(shape: str, state: np.ndarray, size: int) -> np.ndarray:
    """How much of each pixel the object covers, (size, size); over an edge it comes in on the other side."""
    x, y, large, turn = state
    low, high = RADII
    radius = low * (high / low) ** large
    spin = rotation(2 * np.pi * turn / SYMMETRY[shape]) * radius
    contours = [contour @ spin.T for contour in OUTLINES[shape]]
    coverage = np.zeros((size, size), np.float64)
    for right in (-1, 0, 1):
        for down in (-1, 0, 1):
            centre = np.array([x + right, y + down]) * size
            if (-radius < centre).all() and (centre < size + radius).all():
                fill(coverage, [contour + centre for contour in contours], 1.0)
    return coverage


class Moves:
    """`moves_sample`, numbered. The test split of a seed shares no clip with its training split."""

    def __init__(self, split: str, seed: int = 0):
        self.seed, self.count = 2 * seed + (split == "test"), MOVES_COUNT[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[list[Image.Image], int]:
        clip, label, _ = moves_sample(self.seed, index)
        return [Image.fromarray(frame) for frame in clip], label
