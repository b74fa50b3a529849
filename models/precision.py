"""Where bfloat16 pays: with instructions for it matrices multiply several times faster, without them slower."""

from __future__ import annotations

from functools import cache

import torch


@cache
def multiplies_bf16(device: str) -> bool:
    """Tell whether a kind of device, such as "cpu", has instructions for bfloat16."""
    if device != "cpu":
        return True
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # older versions of torch cannot tell
    return bool(capabilities and capabilities().get("avx512_bf16"))
