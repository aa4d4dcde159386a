"""Something that runs: the only interface that environments, evaluators and the comparison runner consume."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from steersman.envs.actions import ActionSet
from steersman.envs.failure import failure_price
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem, Plant, Status, Trail, failed, going
from steersman.envs.scenarios import Scenarios
from steersman.envs.transition import Transition as Transition
from steersman.envs.transition import settle as settle
from steersman.envs.tree import Params, State, tree_finite, tree_index, tree_map, tree_where


@dataclass(frozen=True)
class Measurement:
    """What a controller is shown at a control step.

    Attributes:
        k: Control step of each row.
        y: Measured output.
        r: References ``r_k .. r_{k+h}`` of the performance output; ``h = 0`` without preview.
        u_prev: Action applied in the step before (the neutral action at the start).
        x: True state, only in the "solver access" track.
        p: True parameters as far as they are known at step k (:meth:`~steersman.envs.plant.Plant.known`), likewise.
        hindsight: True parameters with all that is still to come, for the model of that name alone.
        seen: Which outputs were really measured; None where all were. The others repeat the last ones that were.
        t: Time of the measurement, in the unit of the control period; None where it is k control periods.
    """

    k: Int64[Tensor, "n"]
    y: Float[Tensor, "n ny"]
    r: Float[Tensor, "n h1 nz"]
    u_prev: Float[Tensor, "n m"]
    x: State | None = None
    p: Params | None = None
    hindsight: Params | None = None
    seen: Bool[Tensor, "n ny"] | None = None
    t: Float[Tensor, "n"] | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.y.shape[0]

    def rows(self, index: Int64[Tensor, "k"]) -> Measurement:
        """The measurements of some rows."""
        trees = (None if t is None else tree_index(t, index) for t in (self.x, self.p, self.hindsight))
        x, p, hindsight = trees
        seen, t = (None if part is None else part[index] for part in (self.seen, self.t))
        k, y, r, u_prev = self.k[index], self.y[index], self.r[index], self.u_prev[index]
        return Measurement(k, y, r, u_prev, x, p, hindsight, seen, t)  # type: ignore[arg-type]

    def blind(self) -> Measurement:
        """The same measurement without state and parameters: what the "data only" track sees."""
        return replace(self, x=None, p=None, hindsight=None)

    def references(self, horizon: int) -> Float[Tensor, "n horizon nz"]:
        """``r_{k+1} .. r_{k+horizon}``; the last known one is repeated beyond the preview."""
        ahead = self.r[:, 1 : horizon + 1]
        missing = horizon - ahead.shape[1]
        tail = self.r[:, -1:].expand(-1, missing, -1)
        return torch.cat([ahead, tail], dim=1) if missing else ahead


class Simulator(ABC):
    """A batch of ``n`` episodes in progress, without autoreset.

    Attributes:
        n: Number of rows.
        problem: What a controller may know.
        device: Where tensors live.
        dtype: Floating-point type.
        rewards: Whether what it charges is minus a reward of its own, whatever the objective says.
        batched: Whether rows are computed together, so that their last digits may depend on the others.
    """

    n: int
    problem: ControlProblem
    device: torch.device
    dtype: torch.dtype
    rewards: bool = False
    batched: bool = True
    _price: float | None = None

    @property
    def actions(self) -> ActionSet:
        """Admissible actions."""
        return self.problem.actions

    @property
    def plant(self) -> Plant | None:
        """The plant behind the simulator, if there is one; the "solver access" track needs it."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What has happened so far that a reader of the results should know, in whole sentences."""
        return ()

    @abstractmethod
    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """Scenarios drawn from the keys; rows outside ``mask`` are placeholders."""

    @abstractmethod
    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """Start the masked rows (all by default) at their scenarios."""

    @abstractmethod
    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """Advance one control step. Actions are projected on the admissible set; NaN ends its row."""

    @abstractmethod
    def measure(self, preview: int = 0) -> Measurement:
        """Current measurement, with state and parameters where the simulator has them."""

    @abstractmethod
    def perform(self) -> Float[Tensor, "n nz"]:
        """Current performance output."""

    @abstractmethod
    def snapshot(self) -> Any:
        """Everything that is needed to continue from here, detached from later steps."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Continue from a snapshot."""

    @abstractmethod
    def unpriced(self, n: int) -> Simulator:
        """``n`` rows of the same thing that charge nothing for failures but what the plant states."""

    def price(self) -> float:
        """What each step that is left costs when an episode fails; found now if nobody has stated it.

        Raises:
            ValueError: If there is none (:func:`~steersman.envs.failure.failure_price`).
        """
        if self._price is None:
            self._charge(failure_price(self.unpriced))
        return self.problem.objective.failure

    def _settle(
        self,
        terms: dict[str, Tensor],
        alive: Bool[Tensor, "n"],
        k: Int64[Tensor, "n"],
        status: UInt8[Tensor, "n"],
        end: Callable[[], tuple[Tensor, Tensor]],
    ) -> Transition:
        """:func:`settle` for simulators whose step cannot be taken again, with a price once a row has failed."""
        t = settle(self._charged, self.problem.horizon, terms, None, alive, k, status, end)
        if self._price is None and bool((t.ended & failed(t.status)).any()):
            self.price()
            t = settle(self._charged, self.problem.horizon, terms, None, alive, k, status, end)
        return t

    @property
    def _charged(self) -> Objective:
        """The objective that episodes are charged by."""
        return self.problem.objective

    def _charge(self, price: float | None) -> None:
        """Set the price of failures, unless the plant states its own; None leaves it to be found when one happens."""
        own = self.problem.objective.failure
        self._price = own or price
        if self._price is not None and self._price != own:
            self.problem = replace(self.problem, objective=replace(self.problem.objective, failure=self._price))

    def close(self) -> None:  # noqa: B027 - optional hook
        """Release what the simulator holds."""


@dataclass(frozen=True)
class PlantSnapshot:
    """State of a :class:`PlantSimulator`.

    Attributes:
        x: State of the plant.
        scenario: What the episodes are.
        k: Control step of each row.
        status: Status of each row.
        u_prev: Action applied in the step before.
    """

    x: State
    scenario: Scenarios
    k: Int64[Tensor, "n"]
    status: UInt8[Tensor, "n"]
    u_prev: Float[Tensor, "n m"]

    def rows(self, index: Int64[Tensor, "k"]) -> PlantSnapshot:
        """Some rows, for going on: without their start, which for a field or a herd is as large as the state."""
        scenario = Scenarios(self.scenario.key[index], tree_index(self.scenario.p, index))
        return PlantSnapshot(tree_index(self.x, index), scenario, self.k[index], self.status[index], self.u_prev[index])


class PlantSimulator(Simulator):
    """Runs a :class:`Plant`. Finished and diverged rows keep their last finite state and never spread."""

    def __init__(self, plant: Plant, n: int, *, device: torch.device | str = "cpu", price: float | None = None) -> None:
        """Store the plant and the batch size; call :meth:`reset` before the first step.

        Args:
            plant: The plant.
            n: Rows.
            device: Where tensors live.
            price: Price of a failure for a plant that states none, by default found when a row fails
                (:mod:`steersman.envs.failure`).
        """
        if n < 1:
            raise ValueError(f"a simulator needs at least one row, got n={n}")
        self._plant = plant
        self.n = n
        self.problem = plant.problem
        self.device = torch.device(device)
        self.dtype = plant.dtype
        self._now: PlantSnapshot | None = None
        self._charge(_PRICES.get(id(plant)) if price is None else price)

    @property
    def plant(self) -> Plant:
        """The plant."""
        return self._plant

    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """See :class:`Simulator`; only the masked rows are computed."""
        key = key.to(self.device)
        if mask is None:
            return draw_scenarios(self._plant, key)
        drawn = draw_scenarios(self._plant, key[mask])
        position = (mask.cumsum(0) - 1).clamp(min=0)
        return replace(drawn.index(position), key=key)

    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`Simulator`."""
        if len(scenarios) != self.n:
            raise ValueError(f"reset needs {self.n} scenarios, one per row, got {len(scenarios)}")
        scenarios = scenarios.to(self.device)
        if scenarios.x0 is None:
            scenarios = self.scenarios(scenarios.key)
        assert scenarios.x0 is not None  # noqa: S101 - narrows the type
        zero, old = torch.zeros(self.n, dtype=torch.int64, device=self.device), self._now
        fresh = PlantSnapshot(scenarios.x0, scenarios, zero, zero.to(torch.uint8), self._neutral())
        if old is None or mask is None:
            self._now = fresh
            return
        self._now = PlantSnapshot(
            tree_where(mask, fresh.x, old.x),
            scenarios.where(mask, old.scenario),
            torch.where(mask, fresh.k, old.k),
            torch.where(mask, fresh.status, old.status),
            torch.where(mask[:, None], fresh.u_prev, old.u_prev),
        )

    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """See :class:`Simulator`."""
        if tuple(u.shape) != (self.n, self.actions.m):
            raise ValueError(f"u must have shape ({self.n}, {self.actions.m}), got {tuple(u.shape)}")
        u = u.to(self.device, self.dtype)
        after, transition = advance(self._plant, self._running, u, self.problem.objective)
        if self._price is None and bool((transition.ended & failed(transition.status)).any()):
            after, transition = advance(self._plant, self._running, u, self._priced())
        self._now = after
        return transition

    def _priced(self) -> Objective:
        if id(self._plant) not in _PRICES:
            _PRICES[id(self._plant)] = self.price()
            weakref.finalize(self._plant, _PRICES.pop, id(self._plant))
        return self.problem.objective

    def unpriced(self, n: int) -> PlantSimulator:
        """See :class:`Simulator`."""
        return PlantSimulator(self._plant, n, device=self.device, price=0.0)

    def measure(self, preview: int = 0) -> Measurement:
        """See :class:`Simulator`."""
        now, plant = self._running, self._plant
        ahead = [plant.reference(now.k + j if j else now.k, self.p) for j in range(preview + 1)]
        return Measurement(
            k=now.k,
            y=plant.measure(now.k, now.x, self.p),
            r=torch.stack(ahead, dim=1) if preview else ahead[0].unsqueeze(1),
            u_prev=now.u_prev,
            x=now.x,
            p=plant.known(now.k, self.p),
            hindsight=self.p,
        )

    def perform(self) -> Float[Tensor, "n nz"]:
        """See :class:`Simulator`."""
        return self._plant.perform(self.k, self.x, self.p)

    def snapshot(self) -> PlantSnapshot:
        """See :class:`Simulator`."""
        return replace(self._running, x=tree_map(torch.clone, self.x))

    def restore(self, snapshot: PlantSnapshot) -> None:
        """See :class:`Simulator`."""
        self._now = replace(snapshot, x=tree_map(torch.clone, snapshot.x))

    def record(self, trail: Trail | None = None, u: Float[Tensor, "n m"] | None = None) -> Trail:
        """Append row 0 to a trail, for renders; without a trail, begin one.

        Args:
            trail: What :meth:`record` gave before in this episode.
            u: Actions that led here; none at the start.
        """
        now = slice(0, 1)
        if trail is None:
            trail = Trail(tree_index(self.p, now))
        if u is not None:
            trail.u.append(self.actions.project(u)[0].detach().cpu().numpy())
        trail.k.append(int(self.k[0]))
        trail.x.append(tree_map(torch.clone, tree_index(self.x, now)))
        trail.z.append(self.perform()[0].cpu().numpy())
        trail.r.append(self._plant.reference(self.k, self.p)[0].cpu().numpy())
        return trail

    @property
    def k(self) -> Int64[Tensor, "n"]:
        """Control step of each row."""
        return self._running.k

    @property
    def x(self) -> State:
        """Current state."""
        return self._running.x

    @property
    def p(self) -> Params:
        """Parameters of the current scenarios."""
        return self._running.scenario.p

    def _neutral(self) -> Tensor:
        return self.actions.neutral(self.n, torch.zeros(1, dtype=self.dtype, device=self.device))

    @property
    def _running(self) -> PlantSnapshot:
        if self._now is None:
            raise RuntimeError("the simulator has no scenario yet; call reset(scenarios) first")
        return self._now


_PRICES: dict[int, float] = {}
"""Prices that were found, by ``id(plant)``, so that simulators of one plant look for them once. Plants need no hash."""


def advance(
    plant: Plant, now: PlantSnapshot, u: Float[Tensor, "n m"], objective: Objective
) -> tuple[PlantSnapshot, Transition]:
    """One control step of a batch as a pure function: :meth:`PlantSimulator.step` without the object.

    Args:
        plant: The plant.
        now: State of the batch.
        u: Actions, not yet projected, in the plant's type.
        objective: That of the plant, with the price of failures.
    """
    p, n, k = now.scenario.p, len(now.k), now.k
    u = plant.actions.project(u)
    alive = going(now.status) & (k < plant.horizon)
    terms = objective.stage_terms(plant.perform(k, now.x, p), u, u - now.u_prev, plant.reference(k, p))
    gap = None
    if plant.constrained:
        gap = torch.relu(plant.constraints(k, now.x, u, p)).sum(dim=1) * plant.period
    proposed = plant.step(k, now.x, u, plant.disturbance(now.scenario.key, k), p)
    finite = tree_finite(proposed, n) & tree_finite(u, n)
    moves = alive & finite
    x, k = tree_where(moves, proposed, now.x), k + alive
    status = torch.where(finite, plant.status(k, x, p), int(Status.DIVERGED))
    status = torch.where(alive, status, now.status).to(torch.uint8)

    def end() -> tuple[Tensor, Tensor]:
        return plant.perform(k, x, p), plant.reference(k, p)

    t = settle(objective, plant.horizon, terms, gap, alive, k, status, end)
    return PlantSnapshot(x, now.scenario, k, t.status, torch.where(moves[:, None], u, now.u_prev)), t


def draw_scenarios(plant: Plant, key: Int64[Tensor, "n"]) -> Scenarios:
    """Parameters and initial states of a plant for the given keys."""
    p = plant.params(key)
    return Scenarios(key, p, plant.initial(key, p))


def select_rows(x: State, rows: Int64[Tensor, "m"]) -> State:
    """Rows of a state, for evaluators that pair a population with scenarios."""
    return tree_index(x, rows)
