"""What is explained of a model's logits: a class by itself, against one other, or against all others.

K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

OTHERS = "others"
Contrast = int | str | None  # one other class, or OTHERS; None: a class is explained by itself


@dataclass(frozen=True)
class Objective:
    """y(logits): the logit of `target`; minus that of another class; or minus log Σ exp of all the others,
    which is the log-odds of the class under softmax.

    "Why A and not B": what speaks for both drops out. Raises ValueError for a contrast that is none.
    """

    target: int
    contrast: Contrast = None

    def __post_init__(self) -> None:
        if isinstance(self.contrast, str) and self.contrast != OTHERS:
            raise ValueError(
                f'A class is explained against another class, by its number, or against "{OTHERS}", not '
                f"against {self.contrast!r}."
            )
        if self.contrast == self.target:
            raise ValueError(f"Class {self.target} cannot be told from itself: contrast it with another one.")

    def check(self, num_classes: int) -> None:
        """Raises ValueError where a model of so many classes has not these."""
        for one in (self.target, self.contrast):
            if isinstance(one, int) and not 0 <= one < num_classes:
                has = f"this model has {num_classes}, 0 to {num_classes - 1}"
                raise ValueError(f"There is no class {one}: {has}.")
        if self.contrast == OTHERS and num_classes < 2:
            raise ValueError("This model has one class: there are no others to contrast it with.")

    def __call__(self, logits: Tensor) -> Tensor:
        """Of logits (..., K): (...)."""
        y = logits[..., self.target]
        if self.contrast is None:
            return y
        if isinstance(self.contrast, int):
            return y - logits[..., self.contrast]
        return y - self.of_others(logits)

    def of_others(self, logits: Tensor) -> Tensor:
        """log Σ exp over all classes but the target: (...)."""
        gate = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        gate[self.target] = True
        return logits.masked_fill(gate, float("-inf")).logsumexp(dim=-1)

    def weights(self, logits: Tensor) -> Tensor:
        """∂y/∂logits (K,) at logits (K,): 1 for the class, and −1 shared among those it is told from."""
        weights = torch.zeros_like(logits)
        if isinstance(self.contrast, int):
            weights[self.contrast] = -1
        elif self.contrast == OTHERS:
            weights = -(logits - self.of_others(logits)).exp()
        weights[self.target] = 1
        return weights
