"""What the imports of all libraries share: how one refuses, renames, copies."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vit.card import CheckpointError, checked, typed
from vit.config import ViTConfig

Renames = Sequence[tuple[str, str]]  # (regular expression, replacement), applied in this order

# timm's blocks that do something else, and what
BLOCKS = {
    "ResPostBlock": "each branch is normalised behind it, before it is added",
    "EvaBlockPostNorm": "each branch is normalised behind it, before it is added",
    "ParallelScalingBlock": "attention and MLP run side by side",
    "ParallelThingsBlock": "several attentions run side by side",
    "DiffParallelScalingBlock": "attention and MLP run side by side",
}

NO_CONFIG = "A state dict does not say how many heads it has: give its config, too."

# what DataParallel and averages, torch.compile, and transformers' wrapper of timm call the model inside
INSIDE = ("module", "_orig_mod", "timm_model")
NESTED = ("state_dict", "model_state_dict", "model")  # where a training script's file keeps the weights
# the first tensor on a picture's way, which every layout has once: what stands before its name is a prefix
FIRST = re.compile(
    r"(?:^|(?<=\.))(patch_embed\.proj|conv_proj|(?P<inside>(vit|deit|ijepa|dinov2|dinov2_with_registers|pixio|beit|dpt|"
    r"data2vec_vision|vivit|videomae|vision_model(\.model)?)\.)?embeddings\."
    r"(patch_embeddings(\.projection)?|patch_embedding|patch_embed|patch_projection)|"
    r"radio_model\.model\.patch_generator\.embedder)\.weight$"
)


def refuse(what: str, why: str) -> NoReturn:
    raise CheckpointError(f"{what} cannot be loaded exactly, so it is not loaded: it {why}.")


@contextmanager
def one_sentence() -> Iterator[None]:
    """A config or tensors that trip us up are refused in one sentence, whatever they are."""
    try:
        yield
    except CheckpointError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(f"This describes no ViT that can be built: {why}") from error


def configured(**fields: Any) -> ViTConfig:
    """A ViTConfig whose fields have the types and sizes that a ViT can have. Raises TypeError, ValueError."""
    return checked(ViTConfig(**typed(ViTConfig, fields)))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where DataParallel, torch.compile or an average of weights stands around it."""
    while len(inside := dict(model.named_children())) == 1 and (name := next(iter(inside))) in INSIDE:
        model = inside[name]
    return model


def unpacked(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict without the dictionaries that a training script put around it."""
    for key in NESTED:
        if isinstance(state.get(key), Mapping):
            return unpacked(state[key])
    return state


def bare(state: Mapping[str, Any], beside: Sequence[str] | None = None) -> dict[str, Tensor]:
    """A state dict without what a training script put around it: dictionaries, a prefix of all names. beside:
    see `bare_names`."""
    state = unpacked(state)
    return {new: state[old] for old, new in bare_names(state, beside).items()}


def bare_names(names: Iterable[str], beside: Sequence[str] | None = None) -> dict[str, str]:
    """{name as it is: name without the prefix that a wrapper gave to a model's}. Raises CheckpointError.

    beside: of a model of several parts only the one that sees, and what begins so.
    """
    names = list(names)
    firsts = [(name, match) for name in names if (match := FIRST.search(name))]
    prefixes = sorted({name[: match.start()] for name, match in firsts})
    if len(prefixes) > 1:
        several = " and ".join(repr(prefix) for prefix in prefixes[:3])
        raise CheckpointError(f"These are the weights of several models, whose names begin with {several}.")
    prefix = prefixes[0] if prefixes else ""
    if beside is not None and firsts:
        root = prefix + (firsts[0][1]["inside"] or "")
        names = [name for name in names if name.startswith((root, *beside))]
    found = {name: name.removeprefix(prefix) for name in names}
    if len(set(found.values())) < len(found):
        raise CheckpointError(f"Some tensors are there with and without {prefix!r} before their name.")
    return found


def announce(note: str) -> None:
    """Say what was left behind, to whoever called from_timm and its like."""
    if note:
        warnings.warn(note, stacklevel=3)


@one_sentence()
def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own: training one model must not move the other."""
    return {name: x.detach().to("cpu", torch.float32, copy=True) for name, x in state.items()}


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of one number for both, or of two."""
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return first, second


def filled(size: Iterable[int], patch: int) -> tuple[int, ...]:
    """The pixels of a picture that whole patches cover: no library reads those beyond them."""
    return tuple(side // patch * patch for side in size)


def unread(said: Iterable[int], config: ViTConfig) -> str:
    """A note where a picture of the size that a config says has pixels beyond the last whole patch."""
    if tuple(said) == config.image_size:
        return ""
    (height, width), (h, w) = said, config.image_size
    return (
        f"Patches of {config.patch_size} pixels do not fill {height} x {width}: "
        f"what they leave was never read, and {h} x {w} pixels are taken."
    )


def renamed(state: Mapping[str, Tensor], table: Renames) -> dict[str, Tensor]:
    return {rename(name, table): x for name, x in state.items()}


def rename(name: str, table: Renames) -> str:
    for old, new in table:
        name = re.sub(old, new, name)
    return name


def fold_positions(state: dict[str, Tensor], name: str, start: int) -> None:
    """Ours have no position: theirs goes into the token itself, the same sum in the same order."""
    if name in state and "pos_embed" in state:
        pos_embed, end = state["pos_embed"], start + state[name].shape[1]
        state[name] = state[name].float() + pos_embed[:, start:end].float()  # not in the half of a file
        state["pos_embed"] = torch.cat([pos_embed[:, :start], pos_embed[:, end:]], dim=1)
