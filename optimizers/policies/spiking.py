"""A spiking network of hard leaky integrate-and-fire neurons."""

from __future__ import annotations

import itertools
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Dense, Policy, check_hidden


@final
class SpikingPolicy(Policy):
    """Leaky integrate-and-fire layers, spikes in and spikes out, membranes kept between control steps.

    Each control step runs ``ticks`` ticks: ``v <- leak v + W s + b``, a spike ``s = 1`` where ``v >= 1``, then
    ``v <- v - s``. The observation enters the first layer as a constant current. A raw action is read from
    ``pool`` pairs of neurons: the spike count of those that push minus that of those that pull, over
    ``pool * ticks``; it lies in [-1, 1] and has ``2 pool ticks + 1`` levels.

    Spikes are hard steps and the readout counts them, so the action is piecewise constant in parameters,
    observation and membranes: **its gradient is zero almost everywhere**, and there is no surrogate in here.
    Membranes are clamped to [-limit, 2] so that long inhibition does not silence a neuron for good.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (16,),
        *,
        ticks: int = 8,
        pool: int = 2,
        leak: float = 0.9,
        limit: float = 2.0,
        gen: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Draw the weights from ``gen``.

        Args:
            inputs: Entries of an observation.
            outputs: Entries of a raw action.
            hidden: Widths of the hidden layers, at least one.
            ticks: Ticks per control step.
            pool: Pairs of readout neurons per action.
            leak: Factor on a membrane per tick, in [0, 1].
            limit: Depth to which a membrane can be inhibited.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is below 1, ``leak`` outside [0, 1] or ``limit`` negative.
        """
        check_hidden(hidden, 1)
        for name, value in (("ticks", ticks), ("pool", pool)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must lie in [0, 1], got {leak}")
        if limit < 0:
            raise ValueError(f"limit must not be negative, got {limit}")
        sizes = (inputs, *hidden, 2 * pool * outputs)
        super().__init__(inputs, outputs, sum(sizes[1:]))
        self.widths, self.ticks, self.pool, self.leak, self.limit = list(sizes[1:]), ticks, pool, leak, limit
        self.layers = nn.ModuleList(Dense(a, b, gen, dtype) for a, b in itertools.pairwise(sizes))

    def forward(
        self, obs: Float[Tensor, "n inputs"], state: Float[Tensor, "n memory"]
    ) -> tuple[Float[Tensor, "n outputs"], Float[Tensor, "n memory"]]:
        """See :class:`Policy`."""
        membranes = list(torch.split(state, self.widths, dim=1))
        current = self.layers[0](obs)
        count = torch.zeros_like(membranes[-1])
        for _ in range(self.ticks):
            spikes = count
            for i, layer in enumerate(self.layers):
                drive = current if i == 0 else layer(spikes)
                membranes[i], spikes = self._fire(membranes[i], drive)
            count = count + spikes
        push, pull = count.reshape(len(count), 2, self.outputs, self.pool).sum(dim=3).unbind(dim=1)
        return (push - pull) / (self.pool * self.ticks), torch.cat(membranes, dim=1)

    def _fire(self, membrane: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        v = (self.leak * membrane + drive).clamp(-self.limit, 2.0)
        spikes = (v >= 1).to(v.dtype)
        return v - spikes, spikes
