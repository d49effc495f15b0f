"""Training speed against peers and against the processor: `python benchmarks/training.py`.

One plain loop (bf16 autocast, cross-entropy, fused AdamW, pictures in memory) trains ViTs of one shape from
three libraries, in turns whose order is reversed every round; a ratio is the median of the ratios within the
rounds, so that a busy machine slows all alike. With --threads 1 the clock is this process' processor time.
The peak is the fastest square bf16 matrix product measured in the same run; the work of a step is counted
as three times the products of a forward pass (vit.trace.cost).
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vit_pytorch import ViT as PytorchViT

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Job, median, ratio, rounds_of
from train import tune_malloc
from vit import ViT, ViTConfig
from vit.trace import cost

SIDE, PRODUCTS = 2048, 20  # of the matrix products that measure the peak
SHAPES = {  # name: (image_size, patch_size, embed_dim, depth, num_heads, batch_size)
    "cifar10": (32, 4, 192, 6, 3, 128),
    "cifar10 at 24 px": (24, 4, 192, 6, 3, 128),
    "imagenette at 64 px": (64, 8, 192, 6, 3, 64),
    "imagenette": (128, 8, 192, 6, 3, 64),
}


def models(size: int, patch: int, dim: int, depth: int, heads: int) -> dict[str, nn.Module]:
    """One ViT in three libraries."""
    shape = dict(patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads, num_classes=10)
    ours = ViT(ViTConfig(image_size=size, **shape))
    peer = timm.models.vision_transformer.VisionTransformer(img_size=size, **shape)
    other = PytorchViT(
        image_size=size, patch_size=patch, num_classes=10, dim=dim, depth=depth, heads=heads, mlp_dim=4 * dim
    )
    return {"ours": ours, "timm": peer, "vit-pytorch": other}


def stepper(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Job:
    """Training steps of the plain loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train() -> None:
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    return train


def multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(PRODUCTS):
        a @ b


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="per model and round")
    args = parser.parse_args()
    products = partial(multiply, *torch.randn(2, SIDE, SIDE, dtype=torch.bfloat16))
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for name, (size, patch, dim, depth, heads, batch) in SHAPES.items():
        images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
        peers = models(size, patch, dim, depth, heads)
        jobs = {name: stepper(model, images, labels, args.steps) for name, model in peers.items()}
        seconds = rounds_of(jobs | {"peak": products}, args.rounds, clock)
        peak = 2 * SIDE**3 * PRODUCTS / min(took["peak"] for took in seconds)  # FLOP/s
        work = 3 * batch * cost(peers["ours"].config).flops
        print(f"\n{name}: {size} px, patch {patch}, width {dim}, {depth} blocks, batches of {batch}")
        print(f"  peak         {peak / 1e9:6.0f} GFLOP/s")
        for peer in peers:
            step = median(seconds, peer) / args.steps
            print(
                f"  {peer:<12} {batch / step:6.0f} images/s  {work / step / peak:4.0%} of the peak"
                f"  ours is {ratio(seconds, peer, 'ours'):.2f} x as fast"
            )


if __name__ == "__main__":
    tune_malloc()
    main()
