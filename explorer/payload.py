"""A trace as bytes for the viewer: one head, then messages that are fetched when they are first wanted.

L layers, H heads, T tokens, K classes, (h, w) patches, P = h w, Q rows that are sent (T unless T is large).
Of a clip patches are (t, h, w), frame by frame, and P = t h w.

A message is a container, compressed with gzip:

    b"ViTX", uint32 version, uint32 length of the header, uint32 0 | header: JSON, then spaces | sections

    header = {"meta": {...}, "sections": {name: {"dtype", "shape", "offset"}}}

Sections lie on multiples of 8 bytes counted from the first one, little-endian, row-major, so that a browser
makes typed arrays without copying. The header names everything: a reader takes what it knows. What there is
to know, section by section, is in schema.json.

Attention rows are uint8 on a square-root scale, q = round(255 sqrt(a / m)), so a ≈ m (q / 255)². Every row
has two maxima m, in float32: one over its prefix tokens and one over its patches, because [CLS] or a register
often takes nearly everything and would leave the patches without steps. The error is at most
m (sqrt(a / m) / 255 + 1 / 510²), that is 0.4 % of the largest weight shown beside it; uint8 on a linear scale
would turn most of the small weights into zero.

Large models: a layer is H Q T bytes. Up to `ROW_BUDGET` all rows are sent (Q = T: 836 tokens at 12 heads);
beyond, only the rows of the prefix tokens and of every n-th patch in both directions, with the smallest n
that fits, so that 1,370 tokens take 6 MB per layer (every second patch) and 4,801 tokens 8 MB (every sixth).
Of a clip so in every frame.
The columns, what is looked at, are always all there. `row_of` says which row stands for a token.
"""

import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isal import igzip
from PIL import Image
from torch import Tensor

from explorer import maps, stats
from explorer.methods import METHODS
from explorer.render import COLORMAPS, DIVERGING, number, percent
from explorer.roles import Roles
from vit import ViT
from vit.card import Card
from vit.grid import Grid
from vit.objective import Contrast
from vit.pictures import as_picture
from vit.trace import Trace

# every section of every message: dtype, shape, meaning; the JavaScript is tested against the same file
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "schema.json").read_text(encoding="utf-8"))
MAGIC, VERSION = b"ViTX", SCHEMA["version"]
ROW_BUDGET = 2**23  # bytes of attention per layer
# bytes of a layer's attention in float32; beyond, what is read is about right, and says so
EXACT_BUDGET = 2**24
TOP_CLASSES = 20
MAX_POSITIONS = 1024  # patches; beyond, a map per position is too much to look at


def pack(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """Named arrays and a JSON-able `meta` as one gzip'd container."""
    sections, parts, offset = {}, [], 0
    for name, array in arrays.items():
        array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        sections[name] = {"dtype": array.dtype.name, "shape": array.shape, "offset": offset}
        padding = -array.nbytes % 8
        parts += [array.tobytes(), b"\0" * padding]
        offset += array.nbytes + padding
    header = json.dumps({"meta": meta, "sections": sections}).encode()
    header += b" " * (-len(header) % 8)
    numbers = np.array([VERSION, len(header), 0], "<u4").tobytes()
    return igzip.compress(b"".join([MAGIC, numbers, header, *parts]), compresslevel=1, mtime=0)


def unpack(message: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the meta of a container. Raises ValueError for anything else."""
    try:
        # the transport may have unpacked it already
        raw = message if message[:4] == MAGIC else gzip.decompress(message)
        if raw[:4] != MAGIC:
            raise ValueError("it has another signature")
        version, length, _ = np.frombuffer(raw, "<u4", 3, offset=4).tolist()
        if version != VERSION:
            raise ValueError(f"it is version {version}, this program reads version {VERSION}")
        header = json.loads(raw[16 : 16 + length])
        arrays = {}
        for name, section in header["sections"].items():
            count, start = math.prod(section["shape"]), 16 + length + section["offset"]
            array = np.frombuffer(raw, np.dtype(section["dtype"]).newbyteorder("<"), count, start)
            arrays[name] = array.reshape(section["shape"])
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"This is no message for the viewer: {error}.") from error
    return arrays, header["meta"]


def quantize(rows: Tensor, num_prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (..., T) >= 0 as uint8 on a square-root scale, and maxima (..., 2): prefix tokens, patches."""
    maxima = rows.new_zeros(*rows.shape[:-1], 2)
    steps = torch.empty(rows.shape, dtype=torch.uint8)
    for part, columns in enumerate((slice(0, num_prefix), slice(num_prefix, None))):
        weights = rows[..., columns]
        if weights.shape[-1]:
            top = weights.amax(dim=-1, keepdim=True)
            maxima[..., part] = top[..., 0]
            scaled = weights / top.clamp(min=torch.finfo(top.dtype).tiny)
            steps[..., columns] = scaled.sqrt_().mul_(255).round_().to(torch.uint8)
    return steps.numpy(), maxima.float().numpy()


def sent_rows(grid: Grid, num_prefix: int, num_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens whose rows are sent (Q,), and for every token the row that stands for it (T,)."""
    h, w = grid.space
    num_tokens = num_prefix + grid.count
    stride = 1
    while num_heads * num_tokens * (
        num_prefix + grid.frames * -(-h // stride) * -(-w // stride)
    ) > ROW_BUDGET and stride < max(h, w):
        stride += 1
    blocks_down, blocks_across = np.arange(h) // stride, np.arange(w) // stride
    down = np.minimum(np.arange(-(-h // stride)) * stride + stride // 2, h - 1)  # the middle of each block
    across = np.minimum(np.arange(-(-w // stride)) * stride + stride // 2, w - 1)
    patches = (down[:, None] * w + across).ravel()
    block_of = (blocks_down[:, None] * len(across) + blocks_across).ravel()
    frames = np.arange(grid.frames)[:, None]
    patches = (frames * h * w + patches).ravel()
    block_of = (frames * len(down) * len(across) + block_of).ravel()
    prefix = np.arange(num_prefix)
    tokens = np.concatenate([prefix, num_prefix + patches])
    return tokens.astype(np.int32), np.concatenate([prefix, num_prefix + block_of]).astype(np.int32)


def head_payload(
    trace: Trace,
    card: Card,
    model: ViT | None = None,
    roles: Roles | None = None,
    believed: str = "",
    times: Sequence[float] = (),
) -> bytes:
    """All that the first picture needs and all that is small: geometry, image, classes, figures per head.

    model: to say what can be shown of its embeddings. roles: what was measured of its heads.
    believed: the method whose maps were measured to lead. times: in seconds, when each frame of a clip was.
    """
    height, width = trace.image.shape[-2:]
    num_layers, num_tokens = trace.tokens.shape[0] - 1, trace.tokens.shape[1]
    num_heads = trace.attn.shape[1]
    tokens_sent, row_of = sent_rows(trace.grid, trace.num_prefix_tokens, num_heads)
    meta = {
        "kind": "head",
        "name": card.name,
        "height": height,
        "width": width,
        "grid_size": list(trace.grid_size),
        "num_prefix_tokens": trace.num_prefix_tokens,
        "prefix_names": trace.prefix_names,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_tokens": num_tokens,
        "embeddings": embedding_names(trace, model),
        "layer_bytes": num_heads * len(tokens_sent) * num_tokens,
        "scores": card.scores,
        "classes": class_scores(trace, card),
        "colormaps": list(COLORMAPS),
        "signed_colormaps": list(DIVERGING),
        "target": trace.target,
    }
    if roles is not None:
        meta |= {"head_names": roles.all_names(), "opening": roles.opening}
    if believed:
        meta["believed"] = believed
    if times:
        meta["times"] = list(times[:: len(times) // trace.grid.frames])  # of the first frame of each tubelet
    arrays = {
        "class_values": card.values(trace.logits).numpy(),  # (K,) probabilities, or what `scores` says
        **pictures_of(trace, card),
        "row_of": row_of,
        "tokens_sent": tokens_sent,
        "colormaps": np.stack(list(COLORMAPS.values())),  # (C, 256, 3)
        "norms": stats.token_norms(trace).numpy(),  # (L+1, T)
    }
    if trace.attn.numel():
        arrays |= attention_figures(trace)
        meta["uniform_distance"] = stats.uniform_distance(trace)
    return pack(arrays, meta)


def attention_figures(trace: Trace) -> dict[str, np.ndarray]:
    """Of every head what its attention does on average, and how the first token looks: what is seen before
    any layer has come."""
    arrays = {
        "distance": stats.attention_distance(trace).numpy(),  # (L, H)
        "effective_tokens": stats.effective_tokens(trace)[..., trace.num_prefix_tokens :]
        .mean(dim=-1)
        .numpy(),
        "prefix_share": stats.prefix_share(trace).sum(dim=-1).numpy(),
    }
    if trace.grid.frames > 1:
        arrays["lag_share"] = stats.lag_share(trace).numpy()  # (L, H, t)
        arrays["uniform_lags"] = stats.uniform_lags(trace.grid).numpy()  # (t,)
    first = quantize(trace.attn[:, :, 0], trace.num_prefix_tokens)  # (L, H, T)
    return arrays | dict(zip(("first_rows", "first_rows_max"), first))


def layer_payload(
    trace: Trace, layer: int, *, attn: Tensor | None = None, rollout: Tensor | None = None
) -> bytes:
    """What is token × token in one layer: attention of every head, rollout up to it, similarity after it.

    attn: (H, T, T) where `trace.attn` was not kept (see `vit.trace.attention_at`). rollout: (T, T), which is
    `maps.rollout_all(trace)[layer + 1]`, computed once for all layers by the caller.
    """
    attn = trace.attn[layer] if attn is None else attn
    num_prefix = trace.num_prefix_tokens
    tokens_sent, _ = sent_rows(trace.grid, num_prefix, attn.shape[0])
    rows = torch.from_numpy(tokens_sent).long()
    everything = len(rows) == attn.shape[-1]
    arrays = {}
    of_rows = attn if everything else attn[:, rows]  # (H, Q, T)
    arrays["attn"], arrays["attn_max"] = quantize(of_rows, num_prefix)
    if rollout is not None:
        arrays["rollout"], arrays["rollout_max"] = quantize(rollout[rows], num_prefix)  # (Q, T)
    arrays["similarity"] = cosine_bytes(stats.token_similarity(trace, layer + 1, rows))  # (Q, T)
    if layer == 0:
        arrays["similarity_embed"] = cosine_bytes(stats.token_similarity(trace, 0, rows))
    return pack(arrays, {"kind": "layer", "layer": layer})


def exact_payload(attn: Tensor, layer: int) -> bytes:
    """Attention (H, T, T) of one layer as it is, for the numbers that are read beside the pointer."""
    return pack({"exact": attn.float().numpy()}, {"kind": "exact", "layer": layer})


def embeddings_payload(
    trace: Trace, model: ViT | None = None, among: tuple[Sequence[Trace], int] | None = None
) -> bytes:
    """The residual stream as colours; of the model, similarity of its position embeddings and its filters.

    Apart from the head, because principal components take longer than the forward pass did. among: the
    traces of all frames of a clip that a model of pictures looked at, which share a basis, and which it is.
    """

    def colors(joint: bool) -> np.ndarray:
        if among is None:
            return pca_colors(trace, joint)  # (L+1, h, w, 3)
        traces, frame = among
        return np.ascontiguousarray(pca_colors(as_one_clip(traces), joint)[:, frame])

    arrays = {"pca_joint": colors(joint=True), "pca_depth": colors(joint=False)}
    names = embedding_names(trace, model)
    if model is not None and "positions" in names:
        similarity = stats.position_similarity(model, trace.grid_size).reshape(trace.grid.count, -1)
        arrays["positions"] = cosine_bytes(similarity)  # (P, P)
    if model is not None and "filters" in names:
        arrays["filters"] = as_bytes(filters_side_by_side(model))
    return pack(arrays, {"kind": "embeddings"})


def as_one_clip(traces: Sequence[Trace]) -> Trace:
    """The tokens of a clip's frames, each seen by itself, as if they were of one trace; no attention between
    them, so that there is none."""
    prefix = traces[0].num_prefix_tokens
    patches = torch.cat([one.tokens[:, prefix:] for one in traces], dim=1)  # (L+1, F·P, D)
    tokens = torch.cat([traces[0].tokens[:, :prefix], patches], dim=1)
    nothing = torch.empty(0, 0, 0, 0)
    return replace(traces[0], tokens=tokens, attn=nothing, grid=Grid((len(traces), *traces[0].grid.space)))


def follow_payload(traces: Sequence[Trace]) -> bytes:
    """Where the patches of each frame of a clip are found again in the others."""
    tokens = torch.stack([one.tokens[-1, one.num_prefix_tokens :] for one in traces])  # (F, P, D)
    return pack({"matches": stats.frame_matches(tokens).int().numpy()}, {"kind": "follow"})


def filters_side_by_side(model: ViT) -> Tensor:
    """(n, p, p, 3) in [0, 1]; the frames of a tubelet stand beside each other, (n, p, tubelet · p, 3)."""
    filters = stats.patch_filters(model)
    return filters if filters.dim() == 4 else filters.permute(0, 2, 1, 3, 4).flatten(2, 3)


def embedding_names(trace: Trace, model: ViT | None) -> list[str]:
    """What the viewer can show of the embeddings."""
    names = ["pca", "similarity", "norms"]
    if model is not None:
        names += ["positions"] * (math.prod(trace.grid_size) <= MAX_POSITIONS) + ["filters"]
    return names


def maps_payload(
    found: Mapping[str, Tensor],
    card: Card,
    target: int | None = None,
    contrast: Contrast = None,
    **about: Any,
) -> bytes:
    """Maps (h, w) by method name, in float32, of one class, which need not be among the likeliest, or of what
    speaks for it against `contrast`; `about` says what else they belong to (query, layer, head, ...)."""
    arrays = {name: value.float().numpy() for name, value in found.items()}
    named = {} if target is None else {"class_name": explained(card, target, contrast)}
    return pack(arrays, {"kind": "maps", "target": target, **named, **about})


def maps_at_hand(trace: Trace, card: Card, model: ViT | None = None) -> tuple[bytes, list[dict[str, Any]]]:
    """(message, entries of METHODS): the maps that cost at most about a pass of the model.

    They explain the class that the trace explains, against what it does, or else its answer.
    """
    usable = [
        method
        for method in METHODS.values()
        if not method.is_long
        and (model is not None or not method.needs_model)
        and (trace.attn_grad is not None or not method.needs_grad)
        and (trace.pool_attn is not None or not method.pools)
        and not (model is not None and method.refusal(model.config, trace.tokens.shape[1]))
    ]
    target = trace.target
    if target is None and trace.logits.numel():
        target = int(trace.logits.argmax())
    found = {method.name: method(trace, model=model, target=target) for method in usable}
    return maps_payload(found, card, target, trace.contrast), [method.entry for method in usable]


def payloads(
    trace: Trace, card: Card, model: ViT | None = None, roles: Roles | None = None, believed: str = ""
) -> Iterator[bytes]:
    """The head, the embeddings, then every layer."""
    yield head_payload(trace, card, model, roles, believed)
    yield embeddings_payload(trace, model)
    rollouts = maps.rollout_all(trace)
    for layer in range(trace.attn.shape[0]):
        yield layer_payload(trace, layer, rollout=rollouts[layer + 1])


def class_scores(trace: Trace, card: Card) -> list[dict[str, Any]]:
    """The likeliest classes, likeliest first; `value` is a probability, or what the card's `scores` says."""
    if not trace.logits.numel():
        return []
    values = card.values(trace.logits)
    return [
        {
            "index": index,
            "name": class_name(card, index),
            "value": values[index].item(),
            "logit": trace.logits[index].item(),
        }
        for index in trace.logits.argsort(descending=True)[:TOP_CLASSES].tolist()
    ]


def class_name(card: Card, index: int) -> str:
    """The class's name, or its number."""
    return card.class_names[index] if index < len(card.class_names) else f"class {index}"


def explained(card: Card, target: int, contrast: Contrast = None) -> str:
    """The class in words, and what it is explained against."""
    if contrast is None:
        return class_name(card, target)
    other = "all others" if isinstance(contrast, str) else class_name(card, contrast)
    return f"{class_name(card, target)} and not {other}"


def written(card: Card, value: float) -> str:
    """One of the card's `values` as people read it: "97 %", or the number itself."""
    return number(value, ".4g") if card.scores == "none" else percent(value)


def pictures_of(trace: Trace, card: Card) -> dict[str, np.ndarray]:
    """The section of the picture, or those of a clip's frames: of each tubelet the first one."""
    if trace.image.dim() == 3:
        return {"image": np.frombuffer(encode_image(trace.image, card), np.uint8)}
    shown = trace.image[:: len(trace.image) // trace.grid.frames]  # (t, 3, height, width)
    files = [encode_image(frame, card) for frame in shown]
    ends = np.cumsum([len(file) for file in files], dtype=np.int32)
    return {"frames": np.frombuffer(b"".join(files), np.uint8), "frame_ends": ends}


def encode_image(image: Tensor, card: Card) -> bytes:
    """The pixels the model saw, in true colours, of a clip its frames side by side: PNG where small, else
    WebP."""
    buffer = io.BytesIO()
    picture = Image.fromarray(as_picture(image, card))
    if max(image.shape[-2:]) <= 64:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "WEBP", quality=92)
    return buffer.getvalue()


def pca_colors(trace: Trace, joint: bool) -> np.ndarray:
    """The first three principal components of the patches as red, green, blue: (L+1, h, w, 3) uint8.

    Each component is stretched so that 1 % of the patches are at either end: over all depths for a joint
    basis, at each depth otherwise.
    """
    scores = stats.patch_pca(trace, joint=joint).scores.numpy()  # (L+1, h, w, 3)
    patches = tuple(range(1, scores.ndim - 1))
    low, high = np.quantile(scores, (0.01, 0.99), axis=(0, *patches) if joint else patches, keepdims=True)
    colors = (scores - low) / np.maximum(high - low, 1e-12)
    return (colors.clip(0, 1) * 255).round().astype(np.uint8)


def as_bytes(values: Tensor) -> np.ndarray:
    """[0, 1] -> uint8."""
    return values.mul(255).round().to(torch.uint8).numpy()


def cosine_bytes(cosines: Tensor) -> np.ndarray:
    """`cosine_steps` as an array."""
    return cosine_steps(cosines).numpy()


def cosine_steps(cosines: Tensor) -> Tensor:
    """[-1, 1] -> uint8: 0 for -1 and 254 for 1, so that 127 is exactly 0."""
    return cosines.clamp(-1, 1).add(1).mul(127).round().to(torch.uint8)
