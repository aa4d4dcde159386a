"""A spiking network of hard leaky integrate-and-fire neurons."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.optimizers.policies.base import Policy, check_hidden, check_least, dense_layers
from steersman.optimizers.policies.surrogate import hard_with_gradient_of


@final
class SpikingPolicy(Policy):
    """Leaky integrate-and-fire layers, spikes in and spikes out, membranes kept between control steps.

    Each control step runs ``ticks`` ticks: ``v <- leak v + W s + b``, a spike ``s = 1`` where ``v >= 1``, then
    ``v <- v - s``. The observation enters the first layer as a constant current. A raw action is read from
    ``pool`` pairs of neurons: the spike count of those that push minus that of those that pull, scaled; it lies in
    [-span, span] and has ``2 pool ticks + 1`` levels. The default span reaches both ends of every range to less than
    1 % of it (:func:`~steersman.controllers.neural.squash.to_action`): within +-1 a switch whose neutral side is off
    would never be on.

    Spikes are hard steps and the readout counts them, so the action is piecewise constant in parameters,
    observation and membranes: **its gradient is zero almost everywhere**. With the surrogate on, a spike has the
    derivative ``1 / (1 + slope |v - 1|)^2`` of a fast sigmoid (Zenke & Ganguli, "SuperSpike", 2018), and the reset
    passes no gradient on. Membranes are clamped to [-limit, 2] so that long inhibition does not silence a neuron for
    good.
    """

    name: ClassVar[str] = "spiking"
    surrogate: ClassVar[str] = "fast sigmoid"
    batched: ClassVar[bool] = True

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
        slope: float = 5.0,
        span: float = 4.0,
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
            slope: Sharpness of the surrogate.
            span: Largest raw action.
            gen: Source of the initial weights.
            dtype: Type of the weights.

        Raises:
            ValueError: If a size is below 1, ``leak`` outside [0, 1], ``limit`` or ``slope`` negative, or ``span`` not
                positive.
        """
        check_hidden(hidden, 1)
        check_least(1, ticks=ticks, pool=pool)
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must lie in [0, 1], got {leak}")
        for name, bound in (("limit", limit), ("slope", slope)):
            if bound < 0:
                raise ValueError(f"{name} must not be negative, got {bound}")
        if not 0 < span < math.inf:
            raise ValueError(f"span must be positive and finite, got {span}")
        sizes = (inputs, *hidden, 2 * pool * outputs)
        super().__init__(inputs, outputs, sum(sizes[1:]))
        self.widths, self.ticks, self.pool = list(sizes[1:]), ticks, pool
        self.leak, self.limit, self.slope, self.span = leak, limit, slope, span
        self.layers = nn.ModuleList(dense_layers(sizes, gen, dtype))

    def forward(
        self, obs: Float[Tensor, "... n inputs"], state: Float[Tensor, "... n memory"]
    ) -> tuple[Float[Tensor, "... n outputs"], Float[Tensor, "... n memory"]]:
        """See :class:`Policy`."""
        membranes = list(torch.split(state, self.widths, dim=-1))
        current = self.layers[0](obs)
        count = torch.zeros_like(membranes[-1])
        for _ in range(self.ticks):
            spikes = count
            for i, layer in enumerate(self.layers):
                drive = current if i == 0 else layer(spikes)
                membranes[i], spikes = self._fire(membranes[i], drive)
            count = count + spikes
        push, pull = count.reshape(*count.shape[:-1], 2, self.outputs, self.pool).sum(dim=-1).unbind(dim=-2)
        return (push - pull) * (self.span / (self.pool * self.ticks)), torch.cat(membranes, dim=-1)

    def _fire(self, membrane: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.add(drive, membrane, alpha=self.leak).clamp(-self.limit, 2.0)
        spikes = (v >= 1).to(v.dtype)
        after = v - spikes
        if self.use_surrogate:
            spikes = hard_with_gradient_of((v - 1) / (1 + self.slope * (v - 1).abs()), spikes)
        return after, spikes
