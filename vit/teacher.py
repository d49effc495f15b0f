"""A small convolutional network that learns the same classes, and what a ViT learns from it.

Convolutions know from the start that neighbours belong together, so of few pictures they learn more, and
sooner (Touvron et al. 2021, "Training data-efficient image transformers").  Such a teacher says of every
place in a picture how much it speaks for each class; the mean over places is its answer (Zhou et al. 2016,
"Learning deep features for discriminative localization").  A ViT is told three things by it:

    teach            [CLS] should give the classes the teacher's probabilities, beside the labels; with
                     --distillation a second class token should, and [CLS] has the labels for itself: the
                     model answers with the mean of both (the same paper, section 4)
    teach_patches    every patch, read by the ViT's own head, should say what the teacher sees there
                     (Jiang et al. 2021, "All tokens matter: token labeling")
    teach_attention  [CLS] should look where the teacher sees the picture's class (Zagoruyko and Komodakis
                     2017, "Paying more attention to attention"): in the last two layers, the mean of the
                     heads, and each of the first half of them; the others are free

Nobody has marked a place in any picture: labels are all that teacher and ViT are given.

B pictures, K classes, H heads, P patches, (h', w') places: one for every two by two patches.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from vit.card import CheckpointError
from vit.checkpoint import read_tensors, write_atomically
from vit.model import ViT
from vit.options import Options
from vit.trace import Recorder

WIDTHS = (24, 64, 256, 256)  # of what reads the picture, and of three blocks, each at half the resolution
FILE = "teacher.safetensors"
GUIDED = 2  # last layers whose attention is taught


class Conv(nn.Module):
    """A convolution whose weight is the matrix (out, in · side²) that it is, so that Muon steps it."""

    def __init__(self, inputs: int, outputs: int, side: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs * side * side))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.shape = (outputs, inputs, side, side)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.view(self.shape), padding=self.shape[-1] // 2)


class Block(nn.Module):
    """Two convolutions; of each two by two places that the first sees, the strongest answer stays."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.norm1 = Conv(inputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = Conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2, ceil_mode=True)))
        return F.gelu(self.norm2(self.conv2(x)))


class ConvTeacher(nn.Module):
    """(B, 3, height, width) -> (B, K) logits: the mean of what every place says.

    stem: side, in pixels, of the squares that the first convolution reads as one; a place is eight times as
    wide. A quarter of a patch of the ViT that is to learn from it: a place is then two patches wide.
    side: of the pictures it learns from, in pixels; larger ones are made as small before it looks at them.
    """

    def __init__(self, num_classes: int, stem: int, side: int):
        super().__init__()
        self.square, self.side = stem, side
        self.stem = Conv(3 * stem**2, WIDTHS[0], 3)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.Sequential(*(Block(inputs, outputs) for inputs, outputs in pairwise(WIDTHS)))
        self.head = nn.Linear(WIDTHS[-1], num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def places(self, images: Tensor) -> Tensor:
        """The logits of every place, (B, h', w', K)."""
        if images.shape[-1] > self.side:
            images = F.interpolate(images, [self.side, self.side], mode="bilinear", antialias=True)
        x = F.pixel_unshuffle(images, self.square).contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.gelu(self.stem_norm(self.stem(x))))  # (B, 256, h', w')
        return self.head(x.permute(0, 2, 3, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.places(images).mean(dim=(1, 2))


def save_teacher(folder: Path, teacher: ConvTeacher, class_names: Sequence[str]) -> None:
    """Keep what has learned all it will: float32, which classes it knows, and at which side."""
    weights = {name: x.detach().cpu().contiguous() for name, x in teacher.state_dict().items()}
    about = {"classes": "\n".join(class_names), "side": str(teacher.side)}
    write_atomically(folder / FILE, save(weights, about))


def fingerprint(teacher: ConvTeacher | None) -> str:
    """Changes whenever what a teacher has learned does; empty without a teacher."""
    if teacher is None:
        return ""
    digest = hashlib.sha256()
    for x in teacher.state_dict().values():
        digest.update(x.cpu().numpy().tobytes())
    return digest.hexdigest()


def load_teacher(folder: Path, class_names: Sequence[str], sides: Sequence[int] = ()) -> ConvTeacher:
    """A teacher in eval mode, its parameters frozen. Raises CheckpointError where there is none of these
    classes, or none that can look at pictures of these sides."""
    try:
        weights, about = read_tensors(folder / FILE)
        known = about["classes"].split("\n")
        stem = math.isqrt(weights["stem.weight"].shape[1] // 27)  # 3 channels, 3 x 3 squares
        teacher = ConvTeacher(len(known), stem, int(about["side"]))
        teacher.load_state_dict(weights)
    except (CheckpointError, KeyError, ValueError, RuntimeError) as problem:  # no file of ours, other shapes
        advice = "train one with --network conv first, until its end."
        raise CheckpointError(f"{folder} holds no teacher: {advice}") from problem
    if known != list(class_names):
        raise CheckpointError(f"The teacher in {folder} knows other classes than these pictures have.")
    if any(min(side, teacher.side) % teacher.square for side in sides):
        what = f"multiples of {teacher.square}"
        raise CheckpointError(f"The teacher in {folder} needs --image-size and --sizes that are {what}.")
    return teacher.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Guide:
    """guide(net, images (B, 3, height, width), targets (B, K)) -> the loss of a ViT with a teacher."""

    teacher: ConvTeacher
    model: ViT
    options: Options
    bf16: bool

    def __call__(self, net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """net: the model, perhaps wrapped for several processes."""
        options, config = self.options, self.model.config
        prefix, grid = config.num_prefix_tokens, [side // config.patch_size for side in images.shape[-2:]]
        recorder = Recorder({"attn", "norm"}, {*range(config.depth)[-GUIDED:]})
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                places = self.teacher.places(images).float()  # (B, h', w', K)
            logits = net(images, recorder).float()
            tokens = recorder.seen["norm"][None]  # (B, T, D)
            patches = self.model.head(tokens[:, prefix:]).float()  # (B, P, K)
            ours, taught = logits, logits  # (B, K): of what has the labels, and of what has the teacher
            if self.model.head_dist is not None:
                ours, taught = (
                    self.model.head(tokens[:, 0]).float(),
                    self.model.head_dist(tokens[:, 1]).float(),
                )
        said = places.mean(dim=(1, 2)).softmax(dim=-1)  # (B, K)
        labels = F.cross_entropy(ours, targets, label_smoothing=options.label_smoothing)
        loss = torch.lerp(labels, F.cross_entropy(taught, said), options.teach)
        seen = F.interpolate(places.permute(0, 3, 1, 2), grid, mode="bilinear").flatten(2).mT  # (B, P, K)
        there = F.cross_entropy(patches.flatten(0, 1), seen.softmax(dim=-1).flatten(0, 1))
        looked = torch.stack(list(recorder.seen["attn"].values()))[:, :, :, 0, prefix:]  # (layers, B, H, P)
        away = distance(looked.float(), (seen * targets[:, None]).sum(dim=-1))  # (B,)
        sure = (said * targets).sum(dim=1)  # where the teacher doubts, it has nothing to teach
        return loss + options.teach_patches * there + options.teach_attention * (away * sure).mean()


def distance(looked: Tensor, evidence: Tensor) -> Tensor:
    """(B,): how far attention (layers, B, H, P) is from the places that speak for the class more than the
    mean does, evidence (B, P): the Kullback-Leibler divergence, over patches alone."""
    where = (evidence - evidence.mean(dim=1, keepdim=True)).relu()
    where = where / where.sum(dim=1, keepdim=True).clamp(min=1e-6)
    half = looked[:, :, : (looked.shape[2] + 1) // 2].transpose(1, 2).flatten(0, 1)  # (layers · H/2, B, P)
    rows = torch.cat([looked.mean(dim=2), half])
    rows = rows / rows.sum(dim=-1, keepdim=True)
    return (where * (where.clamp(min=1e-8).log() - rows.clamp(min=1e-8).log())).sum(dim=-1).mean(dim=0)
