"""ZeroGPU (https://huggingface.co/docs/hub/spaces-zerogpu): a Space that is lent a GPU for a call at a time.

There the package `spaces` is installed; anywhere else nothing here does anything. The call runs in a process
of its own, what it is given and returns is pickled, and a Space without any such call is refused when it
starts. The page's own process has no GPU: models stay on its CPU, which answers at once; what takes many
passes goes to the GPU, because a visitor waits seconds for it and has a few minutes of it a day.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from explorer.methods import METHODS
from vit.config import ViTConfig
from vit.model import ViT
from vit.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])
SECONDS = 60  # that one map may take of the GPU

try:
    import spaces  # type: ignore[import-not-found]
except ImportError:
    spaces = None
HERE = spaces is not None and "SPACES_ZERO_GPU" in os.environ


def borrowing(seconds: int) -> Callable[[F], F]:
    """A function that runs with a GPU, for at most so many seconds, where one is lent; else as it is."""

    def decorate(function: F) -> F:
        if spaces is None:
            return function
        lent: F = spaces.GPU(duration=seconds)(function)
        return lent

    return decorate


@borrowing(SECONDS)
def map_on_gpu(
    name: str, trace: Trace, config: ViTConfig, weights: dict[str, Tensor], target: int | None
) -> Tensor:
    """(h, w): what a method says, computed on the GPU if there is one. A model does not travel between
    processes, as its activations are functions; its sizes and weights do."""
    model = ViT(config).eval().requires_grad_(False)
    model.load_state_dict(weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return METHODS[name](trace, model=model.to(device), target=target).cpu()
