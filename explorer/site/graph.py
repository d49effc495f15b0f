"""The model as an ONNX graph whose interventions are inputs, and its weights apart from it.

    image (1, 3, height, width), hidden (T,), gate (L, H)
        -> logits (K,), attn (L, H, T, T), tokens (L+1, T, D)
    and, where the model has a ledger (explorer/ledger.py), classes (K,)
        -> ledger_heads (L, H, T), ledger_mlp (L,), ledger_embed (T,), ledger_bias ()

hidden: 0, or minus infinity for a token that nobody may look at. gate: what each head's output is multiplied
by. One graph serves all moments of a training run: only the weights differ, and lie in files of their own.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explorer.ledger import entries
from explorer.methods import METHODS
from vit.model import ViT

OPSET = 18
INPUTS, OUTPUTS = ["image", "hidden", "gate"], ["logits", "attn", "tokens"]
LEDGER = ["ledger_heads", "ledger_mlp", "ledger_embed", "ledger_bias"]


class Live(nn.Module):
    """A forward pass that takes its interventions as tensors and returns what it did."""

    def __init__(self, model: ViT):
        super().__init__()
        self.vit = model

    def forward(
        self, image: Tensor, hidden: Tensor, gate: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        seen: dict[str, list[Tensor]] = {"pos": [], "attn": [], "resid_post": []}
        prefix = self.vit.config.num_prefix_tokens

        def hook(name: str, layer: int | None, x: Tensor) -> Tensor:
            if name in ("scores", "pool_scores"):  # (1, H, T or 1, T): columns are what is looked at
                return x + hidden
            if name == "z" and layer is not None:  # (1, H, T, d)
                return x * gate[layer].view(1, -1, 1, 1)
            if name == "norm" and self.vit.config.pool == "mean":  # a mean over patches leaves them out
                visible = (hidden[prefix:] == 0).to(x)[:, None]  # (P, 1)
                patches = x[:, prefix:]
                mean = (patches * visible).sum(dim=1, keepdim=True) / visible.sum().clamp(min=1)
                return torch.cat([x[:, :prefix], torch.where(visible > 0, patches, mean)], dim=1)
            if name in seen:
                seen[name].append(x)
            return x

        logits = self.vit(image, hook)
        attn, tokens = torch.cat(seen["attn"]), torch.cat(seen["pos"] + seen["resid_post"])
        more = () if classes is None else entries(self.vit, tokens, attn, classes)
        return logits[0], attn, tokens, *more


def has_ledger(model: ViT) -> bool:
    """Does this model's answer fall apart into what heads and tokens gave to it?"""
    return bool(model.config.num_classes) and not METHODS["logit_ledger"].refusal(model.config, 1)


@dataclass(frozen=True)
class Weight:
    """One parameter of the model as the graph asks for it."""

    name: str  # in the graph
    parameter: str  # in the model
    shape: tuple[int, ...]

    def of(self, state: Mapping[str, Tensor]) -> Tensor:
        return state[self.parameter].detach().float().cpu().contiguous()


def export_graph(model: ViT, image_size: tuple[int, int]) -> tuple[bytes, list[Weight]]:
    """(the graph without its weights, the weights that it asks for, in the order of their file).

    Not optimised here: that would melt parameters into other numbers. The runtime does it when it starts.
    """
    from onnx.external_data_helper import set_external_data

    config = model.config
    tokens = config.num_prefix_tokens + config.grid_at(image_size).count
    image = torch.zeros(1, *config.input_shape(image_size))
    inputs: tuple[Tensor, ...] = (image, torch.zeros(tokens), torch.ones(config.depth, config.num_heads))
    names, found = INPUTS, OUTPUTS
    if has_ledger(model):
        inputs, names, found = (*inputs, torch.ones(config.num_classes)), [*names, "classes"], found + LEDGER
    live = Live(deepcopy(model).float().cpu()).eval().requires_grad_(False)
    program = torch.onnx.export(
        live,
        inputs,
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=names,
        output_names=found,
        verbose=False,
    )
    assert program is not None  # None only with dynamo=False
    proto, state = program.model_proto, model.state_dict()
    for node in proto.graph.node:  # where each came from in the program: most of the file
        node.ClearField("metadata_props")
    weights, at = [], 0
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix("vit.")
        if name not in state:  # a constant
            continue
        weights.append(Weight(tensor.name, name, tuple(tensor.dims)))
        size = 4 * math.prod(tensor.dims)
        set_external_data(tensor, "weights", at, size)
        tensor.ClearField("raw_data")
        at += size
    return proto.SerializeToString(), weights


def pack_weights(
    state: Mapping[str, Tensor], weights: list[Weight], bits: int = 16
) -> tuple[bytes, list[dict[str, Any]]]:
    """(content of the file, its list) as js/weights.js reads them; 16 bits, or 8 with one scale per row for
    every matrix."""
    parts: list[bytes] = []
    listed: list[dict[str, Any]] = []
    at = 0

    def add(array: np.ndarray) -> int:
        nonlocal at
        content = array.tobytes()
        content += b"\0" * (-len(content) % 8)
        parts.append(content)
        at += len(content)
        return at - len(content)

    for weight in weights:
        x = weight.of(state)
        entry: dict[str, Any] = {"name": weight.name, "shape": list(weight.shape)}
        if bits == 8 and x.ndim == 2 and min(x.shape) > 1:
            scale = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            entry |= {"dtype": "int8", "at": add((x / scale).round().to(torch.int8).numpy())}
            entry["scale"] = add(scale.numpy())
        else:
            entry |= {"dtype": "float16", "at": add(x.half().numpy())}
        listed.append(entry)
    return b"".join(parts), listed
