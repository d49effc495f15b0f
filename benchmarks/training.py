"""Training speed against peers and against the processor: `python benchmarks/training.py`.

One plain loop (bf16 autocast, cross-entropy, fused AdamW, pictures in memory) trains ViTs of one shape from
three libraries, in turns whose order is reversed every round; a ratio is the median of the ratios within the
rounds, so that a busy machine slows all alike. With --threads 1 the clock is this process' processor time.
The peak is the fastest square bf16 matrix product measured in the same run; the work of a step is counted
as three times the products of a forward pass (vit.cost.cost). "products" does only those products of a step,
forward and backward, and nothing between them: the floor under every implementation that uses this library.
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
from vit import ViT, ViTConfig
from vit.cost import cost
from vit.runs import tune_malloc

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


def products_of(config: ViTConfig, batch: int, steps: int) -> Job:
    """Nothing but the matrix products in the blocks of a training step, in bf16."""
    D, H, d, T = config.embed_dim, config.num_heads, config.head_dim, config.num_patches + 1
    linear = [  # x (B·T, in), weight (out, in), gradient of the output (B·T, out)
        [torch.randn(shape, dtype=torch.bfloat16) for shape in ((batch * T, i), (o, i), (batch * T, o))]
        for i, o in ((D, 3 * D), (D, D), (D, config.mlp_dim), (config.mlp_dim, D))
    ]
    q, k, v, dz = torch.randn(4, batch * H, T, d, dtype=torch.bfloat16)
    attn, scores = torch.randn(2, batch * H, T, T, dtype=torch.bfloat16)

    def multiply_all() -> None:
        for _ in range(steps * config.depth):
            for x, weight, gradient in linear:
                x @ weight.mT, gradient @ weight, gradient.mT @ x
            q @ k.mT, attn @ v  # forward
            dz @ v.mT, attn.mT @ dz, scores @ k, scores.mT @ q  # backward: attn, v, q, k

    return multiply_all


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
    square = partial(multiply, *torch.randn(2, SIDE, SIDE, dtype=torch.bfloat16))
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for name, (size, patch, dim, depth, heads, batch) in SHAPES.items():
        images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
        peers = models(size, patch, dim, depth, heads)
        jobs = {name: stepper(model, images, labels, args.steps) for name, model in peers.items()}
        config = peers["ours"].config
        jobs["products"] = products_of(config, batch, args.steps)
        seconds = rounds_of(jobs | {"peak": square}, args.rounds, clock)
        peak = 2 * SIDE**3 * PRODUCTS / min(took["peak"] for took in seconds)  # FLOP/s
        work = 3 * batch * cost(config).flops
        print(f"\n{name}: {size} px, patch {patch}, width {dim}, {depth} blocks, batches of {batch}")
        print(f"  peak         {peak / 1e9:6.0f} GFLOP/s")
        for job in jobs:
            step = median(seconds, job) / args.steps
            print(
                f"  {job:<12} {batch / step:6.0f} images/s  {work / step / peak:4.0%} of the peak"
                f"  ours is {ratio(seconds, job, 'ours'):.2f} x as fast"
            )


if __name__ == "__main__":
    tune_malloc()
    main()
