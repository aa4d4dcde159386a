"""Proportional-integral-derivative control of several loops, with anti-windup."""

from __future__ import annotations

import time

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Training, TrainingCost
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.settings import at_least
from steersman.envs.simulator import Measurement

_TUNE = 0x71D
"""Separates the draws of gains from those of scenarios."""


class PID(Controller):
    """``u = -(kp e + ki integral(e) + kd dv/dt)``, one loop per action, v a combination of measured outputs.

    The error is ``e = v - r`` with the reference r of the performance output that has the name of the loop's measured
    output, and zero where there is none. A combination that is stated is the error as it is. The integral is
    conditional: it stands still in a loop whose action is beyond its bounds and would be pushed further out. The
    derivative is that of v, by backward difference, so that a step of the reference is no kick.
    """

    name = "pid"

    def __init__(
        self,
        kp: float | tuple[float, ...] = 1.0,
        ki: float | tuple[float, ...] = 0.0,
        kd: float | tuple[float, ...] = 0.0,
        error: tuple[tuple[float, ...], ...] | None = None,
        tune: int = 0,
        decades: float = 1.0,
        scenarios: int = 8,
    ) -> None:
        """Store the settings.

        Args:
            kp: Proportional gains, one number or one per action.
            ki: Integral gains, per unit of the problem's time.
            kd: Derivative gains, times the unit of time.
            error: Matrix ``[m, ny]``: row i combines measured outputs into the error of action i; references
                enter as far as the plant measures them, with a minus sign. By default loop i takes the i-th measured
                output that is not exogenous, minus its reference.
            tune: Sets of gains to try in training, the given ones among them; 0 takes them as they are.
            decades: How far tuning scales each gain, up and down, in powers of ten.
            scenarios: Training scenarios for each set of gains, the same for all.

        Raises:
            ValueError: If a number is out of range or not finite.
        """
        at_least(0, tune=tune, decades=decades)
        at_least(1, scenarios=scenarios)
        for setting, value in (("kp", kp), ("ki", ki), ("kd", kd), ("error", error or 0.0)):
            if not bool(torch.isfinite(torch.as_tensor(value, dtype=torch.float64)).all()):
                raise ValueError(f"{setting} must be finite, got {value}")
        self.kp, self.ki, self.kd, self.error = kp, ki, kd, error
        self.tune, self.decades, self.scenarios = tune, decades, scenarios

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> PID:
        """Check gains and error matrix against the problem.

        Raises:
            ValueError: If their sizes do not fit.
        """
        super().bind(problem, model)
        m = problem.actions.m
        self._M = torch.tensor(self.error or _identity(problem), dtype=torch.float64)
        self._R = torch.zeros(m, problem.nz, dtype=torch.float64)
        self._asked = torch.zeros(problem.nz, dtype=torch.bool)
        if tuple(self._M.shape) != (m, problem.ny):
            raise ValueError(f"error must be {m} rows of {problem.ny} weights, got shape {tuple(self._M.shape)}")
        if self.error is None:
            self._R = _references(problem, self._M)
        self._gains = torch.stack([_row(name, getattr(self, name), m) for name in ("kp", "ki", "kd")])
        self._loop = _Loop(self._gains, self._M, self._R, problem)
        return self

    def train(self, training: Training) -> TrainingCost:
        """Try ``tune`` sets of gains, scaled at random around the given ones, as one batch."""
        if not self.tune:
            return TrainingCost()
        start = time.process_time()
        unit = noise.uniform(
            noise.fold(noise.keys(training.seed, self.tune, device=self.device), _TUNE), 3, self.problem.actions.m
        )
        scale = 10 ** (self.decades * (2 * unit - 1))
        scale[0] = 1.0
        simulator = training.simulate(self.tune * self.scenarios)
        bank = simulator.scenarios(training.keys(self.scenarios).repeat(self.tune))
        gains = (scale * self._gains).repeat_interleave(self.scenarios, dim=0).to(simulator.dtype)
        loop = _Loop(gains.transpose(0, 1), self._M, self._R, self.problem)
        episode = run_episodes(simulator, bank, lambda m: self.problem.actions.project(loop(m)))
        best = int(episode.cost.reshape(self.tune, -1).mean(dim=1).argmin())
        self.load_state_dict({"gains": scale[best] * self._gains})
        return TrainingCost(episode.plant_steps, time.process_time() - start)

    def reset(self, n: int, mask: Bool[Tensor, "n"] | None = None, *, gen: torch.Generator | None = None) -> None:
        """Clear the integrals, of the masked rows or of all."""
        super().reset(n, mask, gen=gen)
        self._loop.clear(mask)

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        """See :class:`~steersman.controllers.base.Controller`."""
        asked = self._asked | (m.r[:, 0] != 0).any(dim=0).to(self._asked.device)
        if not torch.equal(asked, self._asked):
            self._asked = asked
            self.notes = self._unfollowed()
        return self.optimal(self._loop(m))

    def _unfollowed(self) -> tuple[str, ...]:
        """References that have been there and that no loop follows."""
        left = (self._asked & ~self._R.bool().any(dim=0)).nonzero().flatten().tolist()
        if not left:
            return ()
        names = ", ".join(self.problem.performed[i] for i in left[:5]) + (", ..." if len(left) > 5 else "")
        if self.error is None:
            return (f"it does not follow the references of {names}: none of its loops measures an output of that name",)
        return (f"its stated error knows the references of {names} only as far as measured outputs hold them",)

    def state_dict(self) -> dict[str, Tensor]:
        """The gains ``[3, m]`` in the order kp, ki, kd."""
        return {"gains": self._gains}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`~steersman.controllers.base.Controller`."""
        self._gains = state["gains"]
        self._loop = _Loop(self._gains, self._M, self._R, self.problem)


class _Loop:
    """The law with its memory; gains ``[3, m]``, or ``[3, n, m]`` for a batch of different ones."""

    def __init__(self, gains: Tensor, M: Tensor, R: Tensor, problem: ControlProblem) -> None:
        self.gains, self.M, self.R, self.actions, self.period = gains, M, R, problem.actions, problem.period
        self._integral: Tensor | None = None
        self._before: Tensor | None = None

    def clear(self, mask: Tensor | None) -> None:
        if mask is None or self._integral is None or self._before is None:
            self._integral = self._before = None
        else:
            self._integral = torch.where(mask[:, None], 0.0, self._integral)
            self._before = torch.where(mask[:, None], torch.nan, self._before)

    def __call__(self, m: Measurement) -> Float[Tensor, "n m"]:
        v = m.y @ self.M.to(m.y).T
        e = v - m.r[:, 0].to(m.y) @ self.R.to(m.y).T
        kp, ki, kd = self.gains.to(m.y).unbind(0)
        integral = torch.zeros_like(e) if self._integral is None or len(self._integral) != m.n else self._integral
        before = v if self._before is None or len(self._before) != m.n else self._before
        rate = torch.where(before.isnan(), 0.0, (v - before) / self.period)
        u = -(kp * e + ki * (integral + e * self.period) + kd * rate)
        lower, upper = self.actions.bounds(u)
        push = -ki * e
        windup = ((u > upper) & (push > 0)) | ((u < lower) & (push < 0))
        unseen = self._unseen(m)
        self._integral = torch.where(windup | unseen, integral, integral + e * self.period)
        self._before = torch.where(unseen, torch.nan, v)
        return torch.where(windup, u + ki * e * self.period, u)

    def _unseen(self, m: Measurement) -> Bool[Tensor, "n m"]:
        """Loops whose error holds an output that stands in for one that was not measured: it must not be summed up."""
        if m.seen is None:
            return torch.zeros(m.n, len(self.M), dtype=torch.bool, device=m.y.device)
        return (~m.seen).to(self.M) @ self.M.abs().T > 0


def _identity(problem: ControlProblem) -> list[list[float]]:
    kept = [i for i in range(problem.ny) if i not in problem.exogenous]
    m = problem.actions.m
    if len(kept) < m:
        raise ValueError(f"there are {m} actions but {len(kept)} outputs; give PID an error matrix [{m}, {problem.ny}]")
    return [[float(j == kept[i]) for j in range(problem.ny)] for i in range(m)]


def _references(problem: ControlProblem, M: Tensor) -> Float[Tensor, "m nz"]:
    """The references that belong to combinations of outputs, by the outputs' names."""
    same = [[float(z == y) for z in problem.performed] for y in problem.measured]
    return M @ torch.tensor(same, dtype=M.dtype).reshape(problem.ny, problem.nz)


def _row(name: str, value: float | tuple[float, ...], m: int) -> Tensor:
    row = torch.as_tensor(value, dtype=torch.float64)
    if row.dim() and len(row) != m:
        raise ValueError(f"{name} must be one number or {m}, got {value}")
    return row.expand(m)
