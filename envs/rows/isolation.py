"""Global random generators, one set for each row: what models draw from that have no generator of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import BitGenerator


@dataclass
class Globals:
    """States of ``random``, of ``numpy.random`` and of torch's generator on the CPU, as one row left them."""

    standard: Any
    numpy: BitGenerator
    torch: torch.Tensor

    @classmethod
    def seeded(cls, seed: int) -> Globals:
        """Fresh states, those that ``random.seed``, ``numpy.random.seed`` and ``torch.manual_seed`` lead to."""
        bits = np.random.MT19937()
        bits.state = np.random.RandomState(seed % 2**32).get_state(legacy=False)  # type: ignore[assignment]
        return cls(random.Random(seed).getstate(), bits, torch.Generator().manual_seed(seed).get_state())

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The global generators continue from these states; only within :func:`lent`."""
        random.setstate(self.standard)
        np.random.set_bit_generator(self.numpy)  # type: ignore[attr-defined]
        torch.set_rng_state(self.torch)
        try:
            yield
        finally:
            self.standard, self.torch = random.getstate(), torch.get_rng_state()
            self.numpy = np.random.get_bit_generator()  # type: ignore[attr-defined]


@contextmanager
def lent() -> Iterator[None]:
    """Whatever is drawn from the global generators meanwhile, the caller finds them as they were."""
    standard, ours = random.getstate(), torch.get_rng_state()
    # The generator is exchanged, not copied, for speed; a normal number that is kept for later is not part of it.
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]
    state = np.random.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(standard)
        torch.set_rng_state(ours)
        np.random.set_bit_generator(bits)  # type: ignore[attr-defined]
        if state["has_gauss"]:
            np.random.set_state(state)
