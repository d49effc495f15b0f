"""What changes along a training run: learning rate, picture size, moments to measure and to keep."""

import math
from dataclasses import dataclass

from vit.options import Options, stages


@dataclass(frozen=True)
class Schedule:
    """What changes along the run, as plain functions of the step."""

    options: Options
    images: int  # in the training split

    @property
    def per_epoch(self) -> int:
        return self.images // self.options.batch_size

    @property
    def total(self) -> int:
        return max(1, round(self.options.epochs * self.per_epoch))

    def lr(self, step: int) -> float:
        """Linear warm-up, hold, cosine to 0."""
        warmup = max(1, round(min(self.options.warmup * self.per_epoch, self.total / 4)))
        begin = min(max(warmup, self.options.hold * self.total), self.total - 1)
        progress = max(0.0, (step - begin) / (self.total - begin))
        return self.options.lr * min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * progress))

    def side(self, step: int) -> int:
        sides = [side for side, until in stages(self.options) if step < until * self.total]
        return [*sides, self.options.image_size][0]

    def kept(self, step: int, whole: int) -> int:
        """Side from which this step's pictures are cropped: of smaller ones less is needed of the whole."""
        side = self.side(step)
        return min(whole, max(side, whole * side // self.options.image_size))

    def mixes(self, step: int) -> bool:
        return step < 0.85 * self.total and not self.options.mask

    def snapshots(self) -> set[int]:
        """Step 0, and log-spaced ones up to the last."""
        first = max(1.0, self.total / 1000)
        ratio = (self.total / first) ** (1 / max(1, self.options.snapshots - 2))
        return {0, self.total} | {round(first * ratio**i) for i in range(self.options.snapshots - 1)}

    def evaluations(self) -> set[int]:
        return self.snapshots() | {round(self.total * i / 25) for i in range(26)}
