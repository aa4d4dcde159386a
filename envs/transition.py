"""One control step of a batch: what it cost, the price of failures included, and which rows it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from steersman.envs.objective import Objective
from steersman.envs.plant import Status, failed, going


@dataclass(frozen=True)
class Transition:
    """Result of one control step of a batch; a row that had ended before costs nothing and stays put.

    Attributes:
        cost: Cost of the step, including the terminal cost at the end and the price of a failure.
        terms: The parts of ``cost`` by name.
        violation: Integral of the constraint violation over the step.
        status: Status of each row after the step.
        ended: Rows whose episode ended in this very step: by failure, at the goal, or by the horizon.
        truncated: Rows among ``ended`` that ended by the horizon.
    """

    cost: Float[Tensor, "n"]
    terms: dict[str, Tensor]
    violation: Float[Tensor, "n"]
    status: UInt8[Tensor, "n"]
    ended: Bool[Tensor, "n"]
    truncated: Bool[Tensor, "n"]


def settle(
    objective: Objective,
    horizon: int,
    terms: dict[str, Tensor],
    gap: Float[Tensor, "n"] | None,
    alive: Bool[Tensor, "n"],
    k: Int64[Tensor, "n"],
    status: UInt8[Tensor, "n"],
    end: Callable[[], tuple[Tensor, Tensor]],
) -> Transition:
    """What a control step cost, with the terminal cost and the price of failures.

    A row whose cost or constraint violation is not a finite number has diverged, whatever its state: it is charged the
    price, never nothing.

    Args:
        objective: Cost as data, with the price of failures.
        horizon: Control steps of an episode.
        terms: Stage cost by name, of the state before the step.
        gap: Constraint violation over the step; None without constraints.
        alive: Rows that were running.
        k: Control step after the step.
        status: Status after the step.
        end: Performance outputs and references after the step.
    """
    if objective.terminal:
        over = alive & ~failed(status) & (~going(status) | (k >= horizon))
        terms = {**terms, "terminal": torch.where(over, objective.terminal_cost(*end()), 0.0)}
    stage = _sum(terms)
    sound = torch.isfinite(stage) if gap is None else torch.isfinite(stage) & torch.isfinite(gap)
    status = torch.where(alive & ~sound, int(Status.DIVERGED), status).to(torch.uint8)
    fell = alive & failed(status)
    terms = {name: torch.where(alive & sound, t, 0.0) for name, t in terms.items()}
    if objective.failure:
        # In the type of the costs: a truth value times a number would be of single precision.
        terms["failure"] = torch.where(fell, objective.failure * (horizon - k + 1).to(stage.dtype), 0.0)
    cost = _sum(terms)
    ended = alive & (~going(status) | (k >= horizon))
    violation = torch.zeros_like(cost) if gap is None else torch.where(alive & sound, gap, 0.0)
    return Transition(cost, terms, violation, status, ended, ended & going(status))


def _sum(terms: dict[str, Tensor]) -> Tensor:
    parts = list(terms.values())
    return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
