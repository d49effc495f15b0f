"""Training speed against peers and against the processor: `python benchmarks/training.py`.

One plain loop (bf16 autocast, cross-entropy, fused AdamW, pictures in memory) trains ViTs of one shape from
three libraries, in turns whose order is reversed every round; a ratio is the median of the ratios within the
rounds, so that a busy machine slows all alike. With --threads 1 the clock is this process' processor time.
The peak is the fastest square bf16 matrix product measured in the same run; the work of a step is counted
as three times the products of a forward pass.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vit_pytorch import ViT as PytorchViT

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from train import tune_malloc
from vit import ViT, ViTConfig

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


def stepper(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One training step of the plain loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def matmul_peak(clock: Callable[[], float], side: int = 2048) -> float:
    """FLOP/s of a bf16 matrix product."""
    a, b = torch.randn(2, side, side, dtype=torch.bfloat16)
    times = []
    for _ in range(10):
        start = clock()
        a @ b
        times.append(clock() - start)
    return 2 * side**3 / min(times)


def step_flops(size: int, patch: int, dim: int, depth: int, batch: int) -> float:
    """Forward and backward of every matrix product: q k v, scores, attn · v, projection, MLP."""
    tokens = (size // patch) ** 2 + 1
    return 3 * batch * depth * (2 * tokens * 12 * dim**2 + 2 * 2 * tokens**2 * dim)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="per model and round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for name, (size, patch, dim, depth, heads, batch) in SHAPES.items():
        images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
        steps = {k: stepper(m, images, labels) for k, m in models(size, patch, dim, depth, heads).items()}
        times: dict[str, list[float]] = {peer: [] for peer in steps}
        peaks = []
        for step in (*steps.values(), *steps.values()):
            step()  # twice each, to warm up
        for turn in range(args.rounds):
            peaks.append(matmul_peak(clock))
            for peer in list(steps)[:: 1 if turn % 2 == 0 else -1]:
                start = clock()
                for _ in range(args.steps):
                    steps[peer]()
                times[peer].append((clock() - start) / args.steps)
        peak, work = statistics.median(peaks), step_flops(size, patch, dim, depth, batch)
        print(f"\n{name}: {size} px, patch {patch}, width {dim}, {depth} blocks, batches of {batch}")
        print(f"  peak         {peak / 1e9:6.0f} GFLOP/s")
        for peer, spent in times.items():
            ratio = statistics.median(other / own for other, own in zip(spent, times["ours"]))
            fast = statistics.median(spent)
            print(
                f"  {peer:<12} {batch / fast:6.0f} images/s  {work / fast / peak:4.0%} of the peak"
                f"  ours is {ratio:.2f} x as fast"
            )


if __name__ == "__main__":
    tune_malloc()
    main()
