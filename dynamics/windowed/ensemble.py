"""Ensembles of small networks as batched matrix products, and their training with early stopping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.resumable import Descent, Resumable

Weights = dict[str, Tensor]
"""``w0, b0, w1, b1, ..`` with leading axis E (members), and ``skip`` from input to output."""


def new_ensemble(
    members: int, inputs: int, hidden: tuple[int, ...], outputs: int, gen: torch.Generator, skip: Tensor
) -> Weights:
    """Fresh float32 weights: hidden layers uniform in ``+-sqrt(3 / fan_in)``, the last one zero.

    The output layer starts at zero, so that training starts from the linear map ``skip`` ``[inputs, outputs]``.
    """
    sizes = (inputs, *hidden)
    weights: Weights = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        unit = torch.rand(members, a, b, generator=gen, dtype=torch.float32)
        weights[f"w{i}"] = (2 * unit - 1) * math.sqrt(3 / a)
        weights[f"b{i}"] = (torch.rand(members, 1, b, generator=gen, dtype=torch.float32) - 0.5) / 2
    last = len(hidden)
    weights[f"w{last}"] = torch.zeros(members, sizes[-1], outputs)
    weights[f"b{last}"] = torch.zeros(members, 1, outputs)
    weights["skip"] = skip.to(torch.float32).expand(members, -1, -1).clone()
    return {name: value.to(skip.device) for name, value in weights.items()}


def forward(weights: Weights, x: Float[Tensor, "E n inputs"]) -> Float[Tensor, "E n outputs"]:
    """Outputs of every member: a SiLU network plus a linear map."""
    depth = (len(weights) - 1) // 2
    hidden = x
    for i in range(depth):
        hidden = torch.baddbmm(weights[f"b{i}"], hidden, weights[f"w{i}"])
        if i < depth - 1:
            hidden = torch.nn.functional.silu(hidden)
    return hidden + torch.bmm(x, weights["skip"])


def answers(weights: Weights, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "E n outputs"]:
    """Outputs of every member in the precision that they were trained in, which is faster than that of ``x``."""
    skip = weights["skip"]
    return forward(weights, x.to(skip).expand(len(skip), *x.shape)).to(x)


def train(
    weights: list[Weights],
    loss: Callable[[], Tensor],
    validate: Callable[[], float],
    *,
    steps: int,
    rate: float,
    patience: int,
    every: int,
    progress: Callable[[float, str], None],
    gen: torch.Generator,
    resumable: Resumable,
    stage: str,
) -> None:
    """Adam with a cosine schedule, in place; ends with the weights that validated best.

    Args:
        weights: Ensembles whose tensors are trained.
        loss: Loss of a fresh mini-batch.
        validate: Validation loss; also called before the first step, so training never makes matters worse.
        steps: Largest number of gradient steps.
        rate: Initial learning rate.
        patience: Validations without improvement after which training stops.
        every: Steps between validations.
        progress: Called at each validation with a fraction in 0..1 and a short text.
        gen: Source of the mini-batches.
        resumable: The training that this is a stage of.
        stage: Name of the stage.

    Raises:
        ValueError: If no validation loss was finite.
    """
    tensors = [t.requires_grad_() for part in weights for t in part.values()]
    adam = torch.optim.Adam(tensors, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps, eta_min=rate / 50)
    first = validate()
    loss_at_start = first if math.isfinite(first) else math.inf
    best: dict[str, Any] = {"loss": loss_at_start, "stale": 0, "weights": [t.detach().clone() for t in tensors]}

    def descend(i: int) -> bool:
        adam.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(tensors, 10.0)
        adam.step()
        schedule.step()
        if (i + 1) % every and i + 1 != steps:
            return False
        value = validate()
        best["stale"] = 0 if value < best["loss"] else best["stale"] + 1
        if value < best["loss"]:
            best["loss"], best["weights"] = value, [t.detach().clone() for t in tensors]
        progress((i + 1) / steps, f"validation loss {value:.3g}, best {best['loss']:.3g}")
        return bool(best["stale"] >= patience)

    resumable.run(stage, Descent(tensors, adam, schedule, gen, notes=best), steps, descend)
    if not math.isfinite(best["loss"]):
        raise ValueError(
            "no loss on what was held back was finite: predictions run away, or too few outputs were seen to judge "
            "any; lower rate or rollout, or give more data"
        )
    with torch.no_grad():
        for t, good in zip(tensors, best["weights"], strict=True):
            t.copy_(good).requires_grad_(False)
