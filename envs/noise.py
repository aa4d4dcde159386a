"""Counter-based random numbers: a pure function of a key and a position, independent of the batch.

Every random number of Steersman that belongs to a scenario (parameters, initial state, disturbance) is
``mix(key + (i + 1) * GOLDEN)``: SplitMix64 (Steele, Lea, Flood 2014) used as a counter-based generator.
Row ``i`` of a batch therefore sees the same numbers whatever the other rows are, on every device, and a
compiled kernel can draw them too. Keys are int64; arithmetic wraps modulo 2**64.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL1 = _signed(0xBF58476D1CE4E5B9)
_MUL2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """SplitMix64 finaliser: a bijection of 64-bit words with full avalanche."""
    x = (x ^ _shift(x, 30)) * _MUL1
    x = (x ^ _shift(x, 27)) * _MUL2
    return x ^ _shift(x, 31)


def keys(seed: int, n: int, *, start: int = 0, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Keys of scenarios ``start .. start+n-1`` of a seed. Different seeds give unrelated keys."""
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    root = mix(torch.full((1,), _signed(seed & (2**64 - 1)), dtype=torch.int64, device=device))
    index = torch.arange(start, start + n, dtype=torch.int64, device=device)
    return mix(root + (index + 1) * GOLDEN)


def fold(key: Int64[Tensor, "n"], data: int | Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """A new key for sub-stream ``data`` (a control step, an episode, a named purpose)."""
    offset = (data + 1) * GOLDEN if isinstance(data, Tensor) else _signed((data + 1) * GOLDEN & 2**64 - 1)
    return mix(mix(key) + offset)


def bits(key: Int64[Tensor, "n"], *shape: int) -> Int64[Tensor, "n *shape"]:
    """``prod(shape)`` independent 64-bit words for each key."""
    count = math.prod(shape)
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=key.device) * GOLDEN
    return mix(key[:, None] + counter).reshape(key.shape[0], *shape)


def uniform(key: Int64[Tensor, "n"], *shape: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n *shape"]:
    """Uniform numbers in the open interval (0, 1), ``[n, *shape]``; no shape gives ``[n]``."""
    word = bits(key, *shape)
    if dtype == torch.float32:
        return (_shift(word, 40).to(dtype) + 0.5) * 2.0**-24
    return ((_shift(word, 12).to(torch.float64) + 0.5) * 2.0**-52).to(dtype)


def normal(key: Int64[Tensor, "n"], *shape: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n *shape"]:
    """Standard normal numbers by inversion, ``[n, *shape]``; no shape gives ``[n]``."""
    drawn: Tensor = torch.special.ndtri(uniform(key, *shape))
    return drawn.to(dtype)


def integers(key: Int64[Tensor, "n"], low: int, high: int, *shape: int) -> Int64[Tensor, "n *shape"]:
    """Uniform integers in ``low .. high-1``; the bias is below ``(high-low) / 2**52``."""
    if high <= low:
        raise ValueError(f"integers needs high > low, got low={low}, high={high}")
    return low + (uniform(key, *shape) * (high - low)).floor().to(torch.int64)
