"""Weights in about three bits each: what moments of training are kept in.

A tensor is coded row by row as whole steps away from what it was at the moment before, and the codes are
packed by zlib. Early in training hardly anything moves, so that most codes are zero; later a weight needs 3.7
bits. A step is `STEP` of the row's root mean square: coding adds noise of STEP / sqrt(12), 9 %, to a row,
once and not moment by moment, because each is coded against what is decoded of the one before. In the maps
of the bundled models that is about 1 % of a map's maximum (tests/test_codec.py).
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

STEP = 0.3  # of a row's root mean square
DEAD = 0.75  # of a step: what moved less stays where it was, or the noise of the moment before would move it
MOST = 127  # steps: a row that moved further has wider ones


def encode(x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """A tensor of two or more dimensions -> (packed codes (n,) uint8, width of a step per row (rows, 1))."""
    rows = as_rows(x)
    moved = rows - as_rows(before) if before is not None else rows
    width = (STEP * rows.square().mean(dim=1, keepdim=True).sqrt()).clamp(min=1e-12)
    width = torch.maximum(width, moved.abs().amax(dim=1, keepdim=True) / MOST)
    steps = moved / width
    steps[steps.abs() < DEAD] = 0
    codes = steps.round().to(torch.int8).numpy().tobytes()
    packed = min((pack(codes, strategy) for strategy in (zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY)), key=len)
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy()), width


def decode(packed: Tensor, width: Tensor, shape: torch.Size, before: Tensor | None) -> Tensor:
    """The tensor again, in float32. Raises ValueError for codes that are not of this shape."""
    count = math.prod(shape)
    unpacking = zlib.decompressobj()
    try:  # never more than is wanted: a few bytes could unpack to gigabytes
        codes = unpacking.decompress(packed.numpy().tobytes(), count + 1)
    except zlib.error as error:
        raise ValueError("its codes cannot be unpacked") from error
    if len(codes) != count or not unpacking.eof:
        raise ValueError(f"{len(codes)} codes or more for {count} weights")
    steps = torch.from_numpy(np.frombuffer(codes, np.int8).copy()).view(rows_of(shape), -1)
    moved = (steps.float() * width).view(shape)
    return moved if before is None else before + moved


def pack(codes: bytes, strategy: int) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, strategy=strategy)
    return packing.compress(codes) + packing.flush()


def as_rows(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float32).reshape(rows_of(x.shape), -1)


def rows_of(shape: torch.Size) -> int:
    """Rows of a tensor: output channels, tokens."""
    return shape[0] if shape[0] > 1 else math.prod(shape[:-1])
