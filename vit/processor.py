"""What a processor is good at: answers that change how fast a model runs, never what it says."""

from functools import cache

import torch
from torch import Tensor


def slow_when_fused(q: Tensor) -> bool:
    """bf16 training on a CPU: the fused kernel's backward makes a step 1.5 to 1.9 x slower (measured)."""
    return q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16


@cache
def native_bf16(device: torch.device) -> bool:
    """Does this processor multiply bf16 matrices faster than float32? Among CPUs, with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
