"""The model as ONNX graphs, and its weights apart from them.

The graph of a look, whose interventions are inputs:

    image (1, 3, height, width), hidden (T,), gate (L, H)
        -> logits (K,), attn (L, H, T, T), tokens (L+1, T, D)

hidden: 0, or minus infinity for a token that nobody may look at. gate: what each head's output is multiplied
by. A tower of pictures and texts answers with the picture's vector (E,) in their space, and returns those of
the patches (P, E), too (`vit.words.patch_vectors`): no word is in the graph.

The graph of all that happens on the way, for the lesson and the ledger, as far as the model has it:

    image, told (): 1, or 0 where no patch is told its place; classes (K,): what is explained, a class, or in
    the space of a tower (E,) the direction of a word
        -> logits, attn, tokens, embed (P, D), filters (D, 3, p, p), filter_bias (D,),
           q, k, v, z (L, H, T, d), norm1, attn_out, resid_mid (L, T, D), mlp_post (L, T, M),
           positions (P, D), unturned (L, H, T, d), turn_cos, turn_sin (L, H or 1, T, d/2),
           distance (L, H, T, T): what is added to scores, pool_attn (H', T),
           vector, class_weights (D,), class_bias (),
           ledger_heads (L, H, T), ledger_mlp (L,), ledger_embed (T,), ledger_bias () (explorer/ledger.py)

Two, because a runtime computes a whole graph whatever is asked of it. Both read one file of weights, and one
pair of graphs serves all moments of a training run: only the weights differ. A third, without weights, takes
what the first returned, layer by layer, because products of matrices are slow in JavaScript:

    attn (H, T, T), rolled (T, T) up to the layer before, tokens (T, D) after it
        -> rollout (T, T), similarity (Q, T), as explorer/schema.json has it
"""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explorer.ledger import entries
from explorer.methods import METHODS
from explorer.payload import cosine_steps, sent_rows
from explorer.stats import cosines
from vit.grid import Grid
from vit.model import ViT
from vit.positions import resample_pos_embed, rotate
from vit.words import Tower, blocks_before_words, vectors_of_patches

OPSET = 18
INPUTS, OUTPUTS = ["image", "hidden", "gate"], ["logits", "attn", "tokens"]
RELATED = ["attn", "rolled", "tokens"]
OF_WORDS = "patches"
OF_HEADS, OF_TOKENS = ("q", "k", "v", "z"), ("norm1", "attn_out", "resid_mid", "mlp_post")
LEDGER = ("ledger_heads", "ledger_mlp", "ledger_embed", "ledger_bias")


class Live(nn.Module):
    """A forward pass that takes its interventions as tensors and returns what it did."""

    def __init__(self, model: ViT, tower: Tower | None = None):
        super().__init__()
        self.vit = model
        self.tower = tower  # the model's, whose projection is its head

    def forward(self, image: Tensor, hidden: Tensor, gate: Tensor) -> tuple[Tensor, ...]:
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
        stream = seen["pos"] + seen["resid_post"]  # L+1 times (1, T, D)
        found = logits[0], torch.cat(seen["attn"]), torch.cat(stream)
        if self.tower is None:
            return found
        tower = replace(self.tower, model=self.vit)
        if tower.projection is not None:
            assert isinstance(self.vit.head, nn.Linear)
            tower = replace(tower, projection=self.vit.head.weight)
        grid = self.vit.config.grid_at((image.shape[-2], image.shape[-1]))
        return *found, vectors_of_patches(tower, stream[blocks_before_words(tower)], grid)


class Inside(nn.Module):
    """A forward pass that returns all that happened on its way, by the names of `inside_outputs`."""

    def __init__(self, model: ViT):
        super().__init__()
        self.vit = model

    def forward(
        self, image: Tensor, told: Tensor | None = None, classes: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        vit, prefix = self.vit, self.vit.config.num_prefix_tokens
        grid = vit.config.grid_at((image.shape[-2], image.shape[-1]))
        places = vit.places(grid)
        turns = [vit.turn(layer, places) for layer in range(vit.config.depth)]
        biases = [vit.bias(layer, places) for layer in range(vit.config.depth)]
        seen: dict[str, list[Tensor]] = {}

        def hook(name: str, layer: int | None, x: Tensor) -> Tensor:
            turn = turns[layer] if layer is not None and name in ("q", "k") else None
            if turn is not None:
                back = rotate(x, (turn[0], -turn[1]), vit.config.rope_neighbours)
                if name == "q":
                    seen.setdefault("unturned", []).append(back)
                x = x if told is None else torch.where(told > 0, x, back)
            if name == "pos" and told is not None:
                placeless = torch.cat([x[:, :prefix], seen["embed"][0]], dim=1)
                x = torch.where(told > 0, x, placeless)
            bias = biases[layer] if layer is not None and name == "scores" else None
            if bias is not None and told is not None:
                x = torch.where(told > 0, x, x - bias)  # as if all tokens were equally far apart
            seen.setdefault(name, []).append(x)
            return x

        logits = vit(image, hook)
        tokens = torch.cat(seen["pos"] + seen["resid_post"])  # (L+1, T, D)
        found = {name: torch.cat(each) for name, each in seen.items() if name not in ("pos", "logits")}
        found |= {"logits": logits[0], "tokens": tokens, "embed": seen["embed"][0][0]}
        found |= self.of_weights(grid)
        if "pool_attn" in found:
            found["pool_attn"] = found["pool_attn"][0, :, 0]  # (1, H', 1, T) -> (H', T)
        if turns[0] is not None:
            cos, sin = zip(*(turn for turn in turns if turn is not None))
            found |= {"turn_cos": torch.stack(cos), "turn_sin": torch.stack(sin)}
        if biases[0] is not None:
            found["distance"] = torch.stack([bias for bias in biases if bias is not None])
        if classes is not None:
            found |= self.of_classes(found["pooled"][0], classes)
            if has_ledger(vit):
                found |= dict(zip(LEDGER, entries(vit, tokens, found["attn"], classes)))
        return tuple(found[name] for name in inside_outputs(vit))

    def of_weights(self, grid: Grid) -> dict[str, Tensor]:
        """What the lesson shows of the weights themselves."""
        proj, config = self.vit.patch_embed.proj, self.vit.config
        found = {"filters": proj.weight + 0}
        found["filter_bias"] = proj.weight.new_zeros(config.embed_dim) if proj.bias is None else proj.bias + 0
        added = self.vit.pos_embed
        if added is not None and has_positions(self.vit):
            table = resample_pos_embed(added, config.pos_grid, grid.shape, crop=config.pos_square > 0)
            found["positions"] = table[0, -grid.count :]  # (P, D)
        return found

    def of_classes(self, pooled: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """What a plain head multiplies, pooled (D,) and weights; nothing where two heads answer together."""
        if not has_product(self.vit):
            return {}
        head = self.vit.head
        assert isinstance(head, nn.Linear)  # so has_product
        return {
            "vector": pooled,
            "class_weights": classes @ head.weight,
            "class_bias": classes.sum() * 0 if head.bias is None else (classes * head.bias).sum(),
        }


class Related(nn.Module):
    """How the tokens of one layer belong together, for the viewer."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = rows  # (Q,): of these tokens cosines are sent

    def forward(self, attn: Tensor, rolled: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        rolled = torch.addmm(rolled, attn.mean(dim=0), rolled, beta=0.5, alpha=0.5)  # as maps.rollout_all
        return rolled, cosine_steps(cosines(tokens, self.rows))


def inside_outputs(model: ViT) -> list[str]:
    """The outputs of `Inside` that this model has."""
    config = model.config
    names = [*OUTPUTS, "embed", "filters", "filter_bias", *OF_HEADS, *OF_TOKENS]
    names += ["positions"] * has_positions(model)
    names += ["unturned", "turn_cos", "turn_sin"] * (config.rope != "none")
    names += ["distance"] * config.rel_pos
    names += ["pool_attn"] * (config.pool == "attention")
    names += ["vector", "class_weights", "class_bias"] * has_product(model)
    return names + list(LEDGER) * has_ledger(model)


def has_positions(model: ViT) -> bool:
    """Is a position added to every patch?"""
    return model.pos_embed is not None and model.pos_embed.shape[1] >= model.config.num_patches


def has_places(model: ViT) -> bool:
    """Can the places of the patches be kept from this model, and its answer be compared?"""
    config = model.config
    placed = config.rope != "none" or config.rel_pos or has_positions(model)
    return placed and not config.pre_norm and bool(config.num_classes)


def has_product(model: ViT) -> bool:
    """Is every logit one product, of what one head reads and its weights?"""
    return isinstance(model.head, nn.Linear) and not model.config.distillation


def has_ledger(model: ViT) -> bool:
    """Does this model's answer fall apart into what heads and tokens gave to it?"""
    config = model.config
    tokens = config.num_prefix_tokens + config.num_patches
    return bool(config.num_classes) and not METHODS["logit_ledger"].refusal(config, tokens)


@dataclass(frozen=True)
class Weight:
    """One parameter of the model as the graph asks for it."""

    name: str  # in the graph
    parameter: str  # in the model
    shape: tuple[int, ...]

    def of(self, state: Mapping[str, Tensor]) -> Tensor:
        return state[self.parameter].detach().float().cpu().contiguous()


def export_graph(
    model: ViT, image_size: tuple[int, int], tower: Tower | None = None
) -> tuple[bytes, list[Weight]]:
    """(the graph of a look without its weights, the weights that it asks for, in the order of their file).

    tower: where the model is one of pictures and texts, `vit.words.with_projection` of it.
    """
    config = model.config
    tokens = config.num_prefix_tokens + config.grid_at(image_size).count
    image = torch.zeros(1, *config.input_shape(image_size))
    inputs = (image, torch.zeros(tokens), torch.ones(config.depth, config.num_heads))
    live, outputs = Live(deepcopy(model).float().cpu(), tower), OUTPUTS + [OF_WORDS] * (tower is not None)
    proto = exported(live, inputs, INPUTS, outputs)
    weights = [
        Weight(tensor.name, parameter, tuple(tensor.dims))
        for tensor in proto.graph.initializer
        if (parameter := tensor.name.removeprefix("vit.")) in model.state_dict()  # else a constant
    ]
    return without_weights(proto, weights), weights


def export_inside(model: ViT, image_size: tuple[int, int], weights: list[Weight]) -> bytes:
    """The graph of all that happens on the way, which reads the file of these weights, too."""
    config = model.config
    inputs, names = [torch.zeros(1, *config.input_shape(image_size))], ["image"]
    told, classes = None, None
    if has_places(model):
        told = torch.ones(())
        names.append("told")
    if config.num_classes:
        classes = torch.ones(config.num_classes)
        names.append("classes")
    inside = Inside(deepcopy(model).float().cpu())
    return without_weights(exported(inside, (*inputs, told, classes), names, inside_outputs(model)), weights)


def export_related(model: ViT, image_size: tuple[int, int]) -> bytes:
    """The graph of how the tokens of one layer belong together."""
    config = model.config
    grid, H, D = config.grid_at(image_size), config.num_heads, config.embed_dim
    T = config.num_prefix_tokens + grid.count
    rows, _ = sent_rows(grid, config.num_prefix_tokens, H)
    inputs = (torch.zeros(H, T, T), torch.eye(T), torch.ones(T, D))
    proto = exported(Related(torch.from_numpy(rows).long()), inputs, RELATED, ["rollout", "similarity"])
    content: bytes = proto.SerializeToString()
    return content


def exported(module: nn.Module, inputs: tuple[Any, ...], names: list[str], outputs: list[str]) -> Any:
    """The ONNX of a module.

    Not optimised here: that would melt parameters into other numbers. The runtime does it when it starts.
    """
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # of lists without entries, which are none of ours
    program = torch.onnx.export(
        module.eval().requires_grad_(False),
        inputs,
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=names,
        output_names=outputs,
        verbose=False,
    )
    assert program is not None  # None only with dynamo=False
    for node in program.model_proto.graph.node:  # where each came from in the program: most of the file
        node.ClearField("metadata_props")
    return program.model_proto


def without_weights(proto: Any, weights: list[Weight]) -> bytes:
    """The graph as bytes; where a weight stood, its place in the file "weights"."""
    from onnx.external_data_helper import set_external_data

    places, at = {}, 0
    for weight in weights:
        places[weight.name] = at
        at += 4 * math.prod(weight.shape)
    for tensor in proto.graph.initializer:
        if tensor.name in places:
            set_external_data(tensor, "weights", places[tensor.name], 4 * math.prod(tensor.dims))
            tensor.ClearField("raw_data")
    content: bytes = proto.SerializeToString()
    return content


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
