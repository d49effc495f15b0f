"""Attribution against its floors, as ratios measured in one run: `python benchmarks/maps.py`.

Rollout: all depths at once against the usual loop (fuse heads, add the identity, divide by row sums,
multiply) that has to run once per depth, and against that loop made to keep every product on its way.
Relevance: image to map, against one forward and one backward pass of the same model, spelled out.
Ledger: against one fused forward pass.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Job, median, ratio, rounds_of
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

    every, kept = "the usual loop, once per depth", "the usual loop, keeping every product"
    last, both, fused = "the usual loop, last depth", "one forward, one backward", "one fused forward"
    jobs: dict[str, Job] = {
        "rollout, all depths at once": lambda: rollout_all(t),
        "rollout, one map": lambda: rollout(t),
        every: lambda: [usual_rollout(t.attn, d) for d in range(depth + 1)],
        kept: lambda: usual_rollout_kept(t.attn),
        last: lambda: usual_rollout(t.attn, depth),
        "relevance, from an image": lambda: relevance(trace(model, image, target=7)),
        "relevance, from a trace": lambda: relevance(t),
        both: floor,
        "ledger, from a trace": lambda: ledger(t, model),
        fused: forward,
    }
    seconds = rounds_of(jobs, rounds)
    pairs = [
        ("rollout, all depths at once", every),
        ("rollout, all depths at once", kept),
        ("rollout, one map", last),
        ("relevance, from an image", both),
        ("relevance, from a trace", both),
        ("ledger, from a trace", fused),
    ]
    size = f"{t.tokens.shape[1]} tokens, {depth} layers"
    print(f"ViT-{variant}, {size}, {threads} thread(s), medians of {rounds} rounds\n")
    print("| what | ms | against | ms | ratio |\n| --- | ---: | --- | ---: | ---: |")
    for what, against in pairs:
        mine, other = median(seconds, what) * 1e3, median(seconds, against) * 1e3
        print(f"| {what} | {mine:.2f} | {against} | {other:.2f} | {ratio(seconds, what, against):.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="B/16", help="size/patch of the model (default: B/16)")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions per figure (default: 20)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments = parser.parse_args()
    main(arguments.variant, arguments.rounds, arguments.threads)
