"""Looking at every layer's attention, against not looking and against peers: `python benchmarks/capture.py`.

All models have one shape and, but for vit-pytorch's, the same weights. The jobs of a table take turns, in an
order that is reversed every round; a ratio is the median of the ratios within the rounds, so that a busy
machine slows both sides alike. With --threads 1 the clock is the processor time of this process. The
allocator keeps its memory (vit.runs.tune_malloc), for all alike. --compile adds what torch.compile makes of
our capture in bf16, weights frozen: for who looks at thousands of pictures of one size.
"""

import argparse
import sys
import time
from copy import deepcopy
from pathlib import Path

import timm
import torch
import transformers
from timm.utils import AttentionExtract
from torch import Tensor, nn
from torch import _inductor as inductor
from vit_pytorch import ViT as PytorchViT
from vit_pytorch.recorder import Recorder as PytorchRecorder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Job, median, ratio, rounds_of
from vit import Recorder, ViT
from vit.config import VARIANTS
from vit.pretrained import from_transformers
from vit.runs import tune_malloc

BASE = "ours, fused forward"
CAPTURE = "ours, capture"


def models(variant: str) -> dict[str, nn.Module]:
    """One ViT at 224 x 224 in four libraries, with random weights."""
    dim, depth, heads, mlp = VARIANTS[variant.partition("/")[0]]
    shape = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=mlp)
    eager = transformers.ViTForImageClassification(
        transformers.ViTConfig(**shape, num_labels=1000, layer_norm_eps=1e-6)
    )
    with torch.no_grad():
        for parameter in eager.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    eager.set_attn_implementation("eager")
    ours = from_transformers(eager)
    name = {"S/16": "vit_small_patch16_224", "B/16": "vit_base_patch16_224"}[variant]
    theirs = timm.create_model(name, pretrained=False)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    peer = PytorchViT(
        image_size=224, patch_size=16, num_classes=1000, dim=dim, depth=depth, heads=heads,
        dim_head=dim // heads, mlp_dim=mlp,
    )  # fmt: skip
    found = {"ours": ours, "timm": theirs, "transformers": eager, "vit-pytorch": peer}
    return {name: model.eval().requires_grad_(False) for name, model in found.items()}


def capture(model: ViT, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(logits, attention of every layer)"""
    recorder = Recorder({"attn"})
    return model(images, recorder), list(recorder.seen["attn"].values())


def jobs(found: dict[str, nn.Module], images: Tensor) -> dict[str, Job]:
    """Forward passes without and with a look at every layer's attention."""
    with_maps = deepcopy(found["timm"])
    for block in with_maps.blocks:
        block.attn.fused_attn = False
    extract = AttentionExtract(with_maps, method="hook")
    recorder = PytorchRecorder(deepcopy(found["vit-pytorch"]))
    return {
        BASE: lambda: found["ours"](images),
        "timm, fused forward": lambda: found["timm"](images),
        CAPTURE: lambda: capture(found["ours"], images),
        "timm AttentionExtract": lambda: extract(images),
        "transformers output_attentions": lambda: found["transformers"](images, output_attentions=True),
        "vit-pytorch Recorder": lambda: recorder(images),
    }


def compiled(model: ViT, images: Tensor) -> Job:
    """What torch.compile makes of our capture, with the weights frozen into it."""
    look = torch.compile(capture, fullgraph=True, dynamic=False)
    with inductor.config.patch(freezing=True):
        look(model, images)
    return lambda: look(model, images)


def errors(found: dict[str, nn.Module], images: Tensor) -> str:
    """What bf16 costs: the largest and the mean difference to float32, on logits and on maps."""
    exact, exact_maps = capture(found["ours"], images)
    half, half_maps = capture(deepcopy(found["ours"]).bfloat16(), images.bfloat16())
    logits = (half.float() - exact).abs() / exact.std()
    maps = torch.stack([(a.float() - b).abs() for a, b in zip(half_maps, exact_maps)])
    share = maps.amax(-1) / torch.stack(exact_maps).amax(-1)  # of the largest weight in the same row
    return (
        f"logits {logits.max():.3f} of their deviation at most, {logits.mean():.4f} on average; "
        f"maps {maps.max():.1e} at most, {share.mean():.2%} of a row's largest weight"
    )


def main(variants: list[str], batches: list[int], rounds: int, threads: int, compile: bool) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    clock = time.process_time if threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {threads} threads, {rounds} rounds, 224 x 224\n")
    print("| model | batch | dtype | ours fused / timm fused | capture / ours fused | capture / timm | "
          "capture / transformers | capture / vit-pytorch | ms of capture |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    footnotes = []
    with torch.inference_mode():
        for variant in variants:
            found = models(variant)
            half = {name: deepcopy(model).bfloat16() for name, model in found.items()}
            for batch in batches:
                images = torch.randn(batch, 3, 224, 224)
                full_jobs, half_jobs = jobs(found, images), jobs(half, images.bfloat16())
                both = full_jobs | {f"{name} bf16": job for name, job in half_jobs.items()}
                if compile:
                    both["compiled"] = compiled(half["ours"], images.bfloat16())
                seconds = rounds_of(both, rounds, clock)
                peers = list(full_jobs)[3:]
                for suffix, dtype in (("", "float32"), (" bf16", "bfloat16")):
                    row = [ratio(seconds, BASE + suffix, "timm, fused forward" + suffix)]
                    row += [ratio(seconds, CAPTURE + suffix, name + suffix) for name in (BASE, *peers)]
                    ms = median(seconds, CAPTURE + suffix) * 1000
                    cells = " | ".join(f"{x:.2f}" for x in row)
                    print(f"| {variant} | {batch} | {dtype} | {cells} | {ms:.0f} |", flush=True)
                times = ", ".join(f"{ratio(seconds, name, CAPTURE + ' bf16'):.1f} x {name}" for name in peers)
                footnotes.append(f"- {variant}, batch {batch}, capture in bf16 against float32: {times}; "
                                 f"{ratio(seconds, CAPTURE, CAPTURE + ' bf16'):.1f} x our own. Errors: "
                                 + errors(found, images))  # fmt: skip
                if compile:
                    times = ", ".join(f"{ratio(seconds, name, 'compiled'):.1f} x {name}" for name in peers)
                    times += f"; {ratio(seconds, BASE + ' bf16', 'compiled'):.2f} x our fused pass in bf16"
                    footnotes.append(f"  Compiled, capture is {times}")
    print("\n" + "\n".join(footnotes))


if __name__ == "__main__":
    tune_malloc()  # else the kernel's clearing of memory for the kept maps would be timed, too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", default=["S/16", "B/16"], choices=["S/16", "B/16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    main(**vars(parser.parse_args()))
