"""Muon, steps along orthogonal matrices, and which parameters it takes. N matrices of (rows, columns)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vit.options import Options


def orthogonal(x: Tensor) -> Tensor:
    """(N, rows, columns), rows <= columns -> about U Vᵀ of each U S Vᵀ: five Newton-Schulz steps in bf16.

    The polynomial is that of Jordan et al. 2024, "Muon": singular values end between 0.7 and 1.2.
    """
    x = x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT  # (N, rows, rows)
        gram = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, gram, x, beta=3.4445)
    return x


class Muon(torch.optim.Optimizer):
    """Step along the nearest orthogonal matrix of the momentum (Jordan et al. 2024).

    The same numbers as `torch.optim.Muon` with match_rms_adamw (Liu et al. 2025, eq. 4: one learning rate
    suits it and AdamW), with two differences: a group's `parts` says how many matrices lie one below the
    other in each parameter (q, k and v: 3), and all of one shape are made orthogonal in one go.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(groups, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, parts=1))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        alike: dict[torch.Size, list[tuple[Tensor, Tensor, float]]] = {}  # wide shape: (matrix, update, lr)
        for group in self.param_groups:
            for p in group["params"]:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                momentum = self.state[p]["momentum_buffer"]
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"])  # Nesterov's
                p.mul_(1 - group["lr"] * group["weight_decay"])
                for w, u in zip(p.chunk(group["parts"]), update.chunk(group["parts"])):
                    wide = (w.mT, u.mT) if len(w) > w.shape[1] else (w, u)
                    alike.setdefault(wide[0].shape, []).append((*wide, group["lr"]))
        for (_, columns), matrices in alike.items():
            directions = orthogonal(torch.stack([u for _, u, _ in matrices]))
            for (w, _, lr), direction in zip(matrices, directions):
                w.sub_(direction, alpha=0.2 * math.sqrt(columns) * lr)


def make_optimizers(model: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; biases, norms and tokens do not decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    by_muon = {name for name, p in named if options.optimizer == "muon" and p.ndim == 2 and "blocks" in name}
    decays = {name for name, p in named if name not in by_muon and p.ndim >= 2 and name.endswith("weight")}
    groups = [
        {"params": [p for name, p in named if name in decays], "weight_decay": options.weight_decay},
        {"params": [p for name, p in named if name not in by_muon | decays], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), fused=True)
    if not by_muon:
        return [adamw]
    qkv = {name for name in by_muon if name.endswith("qkv.weight")}
    groups = [
        {"params": [p for name, p in named if name in qkv], "parts": 3},
        {"params": [p for name, p in named if name in by_muon - qkv], "parts": 1},
    ]
    return [Muon(groups, lr=options.lr, weight_decay=options.weight_decay), adamw]
