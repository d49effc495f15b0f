"""Attribution against its floors, as ratios measured in one run: `python benchmarks/maps.py`.

Rollout: all depths at once against the usual loop (fuse heads, add the identity, divide by row sums,
multiply) that has to run once per depth, and against that loop made to keep every product on its way.
Relevance: image to map, against one forward and one backward pass of the same model, spelled out.
Ledger: against one fused forward pass.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from explorer.ledger import ledger
from explorer.maps import relevance, rollout, rollout_all
from vit import Recorder, ViT, ViTConfig, trace


def usual_rollout(attn: Tensor, depth: int) -> Tensor:
    """The loop that everybody writes: (L, H, T, T) -> (T, T) after `depth` layers."""
    identity = torch.eye(attn.shape[-1])
    result = identity
    for heads in attn[:depth]:
        step = (heads.mean(dim=0) + identity) / 2
        step = step / step.sum(dim=-1, keepdim=True)
        result = step @ result
    return result


def usual_rollout_kept(attn: Tensor) -> Tensor:
    """The same, keeping what it passes: (L+1, T, T)."""
    identity = torch.eye(attn.shape[-1])
    results = [identity]
    for heads in attn:
        step = (heads.mean(dim=0) + identity) / 2
        step = step / step.sum(dim=-1, keepdim=True)
        results.append(step @ results[-1])
    return torch.stack(results)


def times(rounds: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each job; they take turns, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 2):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if number >= 2:  # the first two rounds warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(variant: str, rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = ViT(ViTConfig.variant(variant, num_classes=1000)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight, std=0.02)
    image = torch.randn(3, 224, 224)
    t = trace(model, image, target=7)
    depth = len(t.attn)
    torch.testing.assert_close(rollout_all(t), usual_rollout_kept(t.attn), rtol=1e-4, atol=1e-6)

    def floor() -> None:
        """One forward with attention spelled out, one backward to attention: nothing else."""
        recorder = Recorder({"attn"})
        logits = model(image[None].clone().requires_grad_(), recorder)
        torch.autograd.grad(logits[0, 7], list(recorder.seen["attn"].values()))

    @torch.no_grad()
    def forward() -> None:
        model(image[None])

    t_rollout = times(
        rounds,
        all_depths=lambda: rollout_all(t),
        one_row=lambda: rollout(t),
        usual_last=lambda: usual_rollout(t.attn, depth),
        usual_each=lambda: [usual_rollout(t.attn, d) for d in range(depth + 1)],
        usual_kept=lambda: usual_rollout_kept(t.attn),
    )
    t_model = times(
        max(5, rounds // 2),
        floor=floor,
        relevance=lambda: relevance(trace(model, image, target=7)),
        from_trace=lambda: relevance(t),
        forward=forward,
        ledger=lambda: ledger(t, model),
    )
    all_depths, from_image, from_trace = t_rollout["all_depths"], t_model["relevance"], t_model["from_trace"]
    floor_, kept = t_model["floor"], t_rollout["usual_kept"]
    rows = [
        (
            "rollout, all depths at once",
            all_depths,
            "the usual loop, once per depth",
            t_rollout["usual_each"],
        ),
        ("rollout, all depths at once", all_depths, "the usual loop, keeping every product", kept),
        ("rollout, one map", t_rollout["one_row"], "the usual loop, last depth", t_rollout["usual_last"]),
        ("relevance, from an image", from_image, "one forward, one backward", floor_),
        ("relevance, from a trace", from_trace, "one forward, one backward", floor_),
        ("ledger, from a trace", t_model["ledger"], "one fused forward", t_model["forward"]),
    ]
    size = f"{t.tokens.shape[1]} tokens, {depth} layers"
    print(f"ViT-{variant}, {size}, {threads} thread(s), medians of {rounds} rounds\n")
    print("| what | ms | against | ms | ratio |\n| --- | ---: | --- | ---: | ---: |")
    for what, mine, against, other in rows:
        print(f"| {what} | {mine * 1e3:.2f} | {against} | {other * 1e3:.2f} | {mine / other:.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="B/16", help="size/patch of the model (default: B/16)")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions per figure (default: 20)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments = parser.parse_args()
    main(arguments.variant, arguments.rounds, arguments.threads)
