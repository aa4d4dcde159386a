"""A fitted model as the plant that controllers are compared on, where there is a log and no simulator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories, Window
from steersman.dynamics.windowed.windows import cut, lasting, starts, window_at
from steersman.envs import noise
from steersman.envs.gymnasium_adapters.gym_simulator import Goal
from steersman.envs.gymnasium_adapters.outputs import Reading, constant_references
from steersman.envs.plant import Status, going
from steersman.envs.scenarios import Scenarios
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement, Simulator, Transition
from steersman.envs.tree import tree_where
from steersman.experiments.exported.model import load_model

_START, _SURPRISE = 0x57A7, 0x5B19
"""Separate the draws of an episode's start from those of its surprises."""
_MOST = 65_536
"""Surprises that are kept, spread over the recording."""


@dataclass(frozen=True)
class FittedSnapshot:
    """State of a :class:`FittedSimulator`.

    Attributes:
        key: Scenario of each row.
        x: The last outputs ``y`` ``[n, L, ny]``, the actions ``u`` between them, the action ``before`` and the episode
            and time ``at`` of the recording that each row began at.
        k: Control step of each row.
        status: Status of each row.
    """

    key: Int64[Tensor, "n"]
    x: dict[str, Tensor]
    k: Int64[Tensor, "n"]
    status: UInt8[Tensor, "n"]


class FittedSimulator(Simulator):
    """Episodes that begin where recorded ones passed, and go on as a model of the recording foretells.

    After each step the outputs are those that the model foretells and a surprise: an error of its predictions of one
    step, drawn from those that it made on the recording, so that what the model cannot know stays as uncertain as it
    was. Exogenous outputs repeat the recording. An episode fails where the objective's limits are left. What a
    controller earns here it earns from the model; :attr:`notes` say how often that was asked beyond its data.
    """

    def __init__(
        self,
        n: int,
        model: str,
        horizon: int | None = None,
        surprise: float = 1.0,
        *,
        device: torch.device | str = "cpu",
        price: float | None = None,
        objective: Goal | None = None,
        reading: Reading | None = None,
    ) -> None:
        """Load the model.

        Args:
            n: Rows.
            model: ``model.json`` of the folder that ``steersman fit`` wrote.
            horizon: Control steps of an episode; by default those of the recording, 200 at most.
            surprise: Factor of the surprises; 0 leaves them out.
            device: Where it runs: the CPU.
            price: Price of a failure, by default found when a row fails (:mod:`steersman.envs.failure`).
            objective: What an episode costs, in outputs and actions by their names.
            reading: Constant references of outputs, by name.

        Raises:
            ValueError: If a number is out of range, there is no objective, or a name is unknown.
            FileNotFoundError: If there is no model.
        """
        at_least(1, n=n, horizon=horizon)
        at_least(0, surprise=surprise)
        if torch.device(device).type != "cpu":
            raise ValueError(f"fitted models run on the CPU, got device {str(device)!r}")
        saved = load_model(model)
        goal = objective(saved.problem.performed, saved.problem.actions.names) if callable(objective) else objective
        if goal is None or not (goal.stage or goal.terminal):
            raise ValueError("objective: a log holds no costs; state what an episode costs in its outputs and actions")
        self._given = {"model": model, "horizon": horizon, "surprise": surprise, "objective": objective}
        self._reading = reading
        self.n, self._data, self._model, self._factor = n, saved.data, saved.model, surprise
        self.device, self.dtype = torch.device("cpu"), saved.data.y.dtype
        self.problem = replace(saved.problem, objective=goal, horizon=horizon or saved.problem.horizon)
        constant = constant_references(reading, saved.problem.performed, "a fitted model")
        self._reference = torch.tensor(constant, dtype=self.dtype)
        self._starts = self._beginnings()
        self._errors = _surprises(saved.model, saved.data)
        self._asked = self._beyond = 0
        self._now: FittedSnapshot | None = None
        self._charge(price)

    def _beginnings(self) -> Int64[Tensor, "k 2"]:
        """Where the context lies behind and, if outputs are exogenous, an episode ahead; never beyond the limits."""
        ahead = self.problem.horizon if self.problem.exogenous else 1
        if self.problem.exogenous and not self._data.uniform:
            raise ValueError(
                "exogenous outputs repeat the recording, and its rows are irregular; fit the log with resample = true"
            )
        try:
            found = starts(self._data.complete, self._model.context, ahead)
        except ValueError as error:
            raise ValueError(f"horizon: exogenous outputs repeat the recording, and {error}") from error
        lost = self.problem.objective.lost(cut(self._data.y, found, 0, 1)[:, 0])
        if lost is not None and bool(lost.all()):
            raise ValueError("limits: the recording lies beyond them wherever an episode could begin; widen them")
        return found if lost is None else found[~lost]

    @property
    def notes(self) -> tuple[str, ...]:
        """How often the model was asked beyond its data."""
        if not self._beyond:
            return ()
        share = self._beyond / self._asked
        return (f"its plant is a fitted model, which was asked beyond its data in {share:.1%} of the steps",)

    def unpriced(self, n: int) -> FittedSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return FittedSimulator(n, **self._given, price=0.0, reading=self._reading)  # type: ignore[arg-type]

    def scenarios(self, key: Int64[Tensor, "n"], mask: Bool[Tensor, "n"] | None = None) -> Scenarios:
        """The keys alone: start and surprises are drawn from them."""
        return Scenarios(key)

    def reset(self, scenarios: Scenarios, mask: Bool[Tensor, "n"] | None = None) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        if len(scenarios) != self.n:
            raise ValueError(f"reset needs {self.n} scenarios, one per row, got {len(scenarios)}")
        key = scenarios.key.cpu()
        at = self._starts[_drawn(noise.fold(key, _START), len(self._starts))]
        window = window_at(self._data, at, self._model.context)
        x = {"y": window.y, "u": window.u, "before": window.now.u_prev, "at": at}
        zero, old = torch.zeros(self.n, dtype=torch.int64), self._now
        fresh = FittedSnapshot(key, x, zero, zero.to(torch.uint8))
        self._now = fresh if old is None or mask is None else _where(mask.cpu(), fresh, old)

    @torch.no_grad()
    def step(self, u: Float[Tensor, "n m"]) -> Transition:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        if tuple(u.shape) != (self.n, self.actions.m):
            raise ValueError(f"u must have shape ({self.n}, {self.actions.m}), got {tuple(u.shape)}")
        now, objective, r = self._running, self.problem.objective, self._reference.expand(self.n, -1)
        u = self.actions.project(u.detach().cpu().to(self.dtype))
        alive = going(now.status) & (now.k < self.problem.horizon)
        terms = objective.stage_terms(self.perform(), u, u - now.x["before"], r)
        y = self._foretold(now, u, alive)
        finite = torch.isfinite(y).all(dim=1) & torch.isfinite(u).all(dim=1)
        status = torch.where(finite, int(Status.OK), int(Status.DIVERGED))
        if (lost := objective.lost(y)) is not None:
            status = torch.where(finite & lost, int(Status.TERMINATED), status)
        status = torch.where(alive, status, now.status).to(torch.uint8)
        moved = {
            "y": torch.cat([now.x["y"][:, 1:], y[:, None]], dim=1),
            "u": torch.cat([now.x["u"], u[:, None]], dim=1)[:, 1:],
            "before": u,
            "at": now.x["at"],
        }
        x, k = tree_where(alive & finite, moved, now.x), now.k + alive
        self._now = FittedSnapshot(now.key, x, k, status)
        t = self._settle(terms, alive, k, status, lambda: (self.perform(), r))
        self._now = replace(self._now, status=t.status)
        return t

    def _foretold(
        self, now: FittedSnapshot, u: Float[Tensor, "n m"], alive: Bool[Tensor, "n"]
    ) -> Float[Tensor, "n ny"]:
        """Outputs after the step."""
        h = self._model.init(Window(now.x["y"], now.x["u"], self.measure()))
        if (doubt := self._model.doubt(h, u)) is not None:
            self._asked += int(alive.sum())
            self._beyond += int((alive & (doubt > 1)).sum())
        y, _ = self._model.output(self._model.step(h, u))
        if self._factor:
            key = noise.fold(noise.fold(now.key, _SURPRISE), now.k)
            y = y + self._factor * self._errors[_drawn(key, len(self._errors))]
        if exogenous := list(self.problem.exogenous):
            episode, time = now.x["at"].unbind(dim=1)
            recorded = self._data.y[episode, (time + now.k + 1).clamp(max=self._data.y.shape[1] - 1)]
            y[:, exogenous] = recorded[:, exogenous]
        return y

    def measure(self, preview: int = 0) -> Measurement:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        now = self._running
        r = self._reference.expand(self.n, preview + 1, -1)
        return Measurement(now.k, now.x["y"][:, -1], r, now.x["before"])

    def perform(self) -> Float[Tensor, "n nz"]:
        """The measured outputs: a log has no others."""
        return self._running.x["y"][:, -1]

    def snapshot(self) -> FittedSnapshot:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return self._running

    def restore(self, snapshot: FittedSnapshot) -> None:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        self._now = snapshot

    @property
    def _running(self) -> FittedSnapshot:
        if self._now is None:
            raise RuntimeError("the simulator has no scenario yet; call reset(scenarios) first")
        return self._now


def _where(mask: Bool[Tensor, "n"], a: FittedSnapshot, b: FittedSnapshot) -> FittedSnapshot:
    key, k, status = (torch.where(mask, *both) for both in ((a.key, b.key), (a.k, b.k), (a.status, b.status)))
    return FittedSnapshot(key, tree_where(mask, a.x, b.x), k, status)


def _drawn(key: Int64[Tensor, "n"], count: int) -> Int64[Tensor, "n"]:
    """One of ``count`` for each key."""
    return (noise.uniform(key, 1, dtype=torch.float64)[:, 0] * count).long().clamp(max=count - 1)


@torch.no_grad()
def _surprises(model: Dynamics, data: Trajectories) -> Float[Tensor, "k ny"]:
    """Errors of predictions of one step on the recording, less their mean."""
    rows = starts(data.complete, model.context, 1)
    rows = rows[torch.linspace(0, len(rows) - 1, min(_MOST, len(rows))).long()]
    dt = lasting(data, rows, 1)
    foretold, _ = model.rollout(model.init(window_at(data, rows, model.context)), cut(data.u, rows, 0, 1), dt)
    error = cut(data.y, rows, 1, 1)[:, 0] - foretold[:, 0]
    if dt is not None:  # errors of independent disturbances grow with the root of time
        error = error * (data.period / dt).sqrt()
    return error - error.mean(dim=0)
