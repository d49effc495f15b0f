"""The smallest run of train.py that has everything in it, for the tests of training and of runs."""

import os
import signal
from pathlib import Path

import torch

import train

TINY = "--image-size 16 --patch-size 8 --embed-dim 16 --depth 2 --num-heads 2 --batch-size 8 --epochs 4"
TINY += " --snapshots 4 --min-area 0.5 --mix 0.5 --colour 0.2 --sizes 8:0.3 --eval-images 6 --precision fp32"


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(pictures), "--out", str(out), *TINY.split(), *more]


def run(pictures: Path, out: Path, *more: str, save_every: float = 0.0) -> dict[str, torch.Tensor]:
    train.main(command(pictures, out, *more), save_every)
    return weights(out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    state = torch.load(out / "state.pt", weights_only=True)
    return state["model"] | {f"ema.{name}": x for name, x in state["ema"].items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupted(monkeypatch, at_step: int) -> None:
    """As if Ctrl-C were pressed during that step."""
    learn, count = train.learn, iter(range(10_000))

    def press(*args, **options):
        if next(count) == at_step:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(*args, **options)

    monkeypatch.setattr(train, "learn", press)
