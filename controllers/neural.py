"""Dynamics-informed neural control: a policy trained by backpropagation through a model of the plant."""

from __future__ import annotations

import time
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Memory, Training, TrainingCost
from steersman.controllers.policy import TrainedPolicy, build_policy, to_action
from steersman.dynamics.base import Dynamics, Hidden, Window
from steersman.dynamics.collect import HeldLevels
from steersman.envs.plant import ControlProblem
from steersman.envs.tree import tree_index
from steersman.optimizers.vectorise import assign, flatten

_STARTS = 0x57A27
"""Separates the scenarios of starting points from the others of a training."""
CHECKS = 10
"""Times that the policy is validated during a training."""


class NeuralPolicy(TrainedPolicy):
    """A network that is trained on the objective itself, through the model that predicts it.

    Rollouts start from windows of episodes under exploration and, after the first half of the training, under the
    policy. Each gradient step rolls a batch of them out for ``horizon`` steps (with ``curriculum``, growing from a
    quarter of it) and descends the mean cost: differentiable predictive control (Drgona et al. 2022) with a learned
    model, analytic policy gradients with the plant itself. Integer actions pass their gradient straight through the
    rounding. Steps with a gradient that is not finite are skipped.

    Through the plant ("truth"), every step of a rollout is counted as a plant step and the track is "solver
    access", although the trained policy reads measured outputs only.
    """

    name = "neural"

    def __init__(
        self,
        policy: Literal["mlp", "gru"] = "mlp",
        hidden: tuple[int, ...] = (32, 32),
        steps: int = 400,
        batch: int = 64,
        rate: float = 3e-3,
        horizon: int = 20,
        curriculum: bool = True,
        doubt: float = 0.0,
        explore: int = 16,
    ) -> None:
        """Store the settings.

        Args:
            policy: Architecture.
            hidden: Widths of the hidden layers.
            steps: Gradient steps.
            batch: Rollouts per gradient step.
            rate: Initial learning rate of Adam, cosine schedule.
            horizon: Control steps of a rollout.
            curriculum: Whether rollouts start short and grow.
            doubt: Cost of leaving the model's data: times the model's doubt above 1, each step.
            explore: Episodes that starting points and normalisation are taken from.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(policy, hidden, explore, None)
        for setting, value in (("steps", steps), ("batch", batch), ("horizon", horizon)):
            if value < 1:
                raise ValueError(f"{setting} must be at least 1, got {value}")
        if not rate > 0 or not doubt >= 0:
            raise ValueError(f"need rate > 0 and doubt >= 0, got rate={rate}, doubt={doubt}")
        self.steps, self.batch, self.rate, self.horizon = steps, batch, rate, horizon
        self.curriculum, self.doubt = curriculum, doubt

    def bind(self, problem: ControlProblem, model: Dynamics | None = None) -> NeuralPolicy:
        """Attach the model that training differentiates.

        Raises:
            ValueError: Without a model, with an objective without terms, or with a true plant without gradient.
        """
        if model is None:
            raise ValueError("neural is trained through a model; give it one, for example 'truth' or 'neural'")
        if not problem.objective.stage:
            raise ValueError("neural needs an objective written in the outputs; state one in the comparison file")
        if model.needs_state and problem.gradient == "none":
            raise ValueError("this plant has no gradient; train through a learned model such as 'neural'")
        super().bind(problem, model)
        return self

    def train(self, training: Training) -> TrainingCost:
        """Descend the cost of rollouts; the policy with the lowest validated cost stays."""
        start = time.process_time()
        used = self._normalise(training)
        self._policy = build_policy(self.policy, self.problem.ny, self.problem.actions.m, self.hidden, training.seed)
        gen = torch.Generator().manual_seed(training.seed)
        pool, steps = self._starts(training, 0)
        used += steps
        optimiser = torch.optim.Adam(self._policy.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        best, lowest = flatten(self._policy), float("inf")
        for i in range(self.steps):
            if i == self.steps // 2:
                pool, steps = self._starts(training, 1)
                used += steps
                lowest = float("inf")
            length = self.horizon
            if self.curriculum:
                length = max(1, round(self.horizon * (0.25 + 0.75 * min(1.0, 2 * i / self.steps))))
            rows = torch.randint(len(pool.y), (self.batch,), generator=gen)
            loss = self._loss(_rows(pool, rows), length)
            used += self._charged(length)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
            if bool(torch.isfinite(norm)):
                optimiser.step()
            schedule.step()
            if (i + 1) % max(1, self.steps // CHECKS) == 0 or i == self.steps - 1:
                cost = self._validate(pool)
                used += self._charged(self.horizon)
                if cost < lowest:
                    best, lowest = flatten(self._policy), cost
                training.progress((i + 1) / self.steps, f"cost of a rollout {cost:.4g}")
        assign(self._policy, best)
        return TrainingCost(used, time.process_time() - start)

    def _charged(self, length: int) -> int:
        """Plant steps of a batch of rollouts: none through a learned model."""
        assert self.model is not None  # noqa: S101 - bind has seen to it
        return length * self.batch if self.model.needs_state else 0

    def _starts(self, training: Training, stage: int) -> tuple[Window, int]:
        """Windows along episodes: of exploration at stage 0, half of them of the policy later."""
        assert self.model is not None  # noqa: S101 - bind has seen to it
        simulator = training.simulate(self.explore)
        keys = training.keys(self.explore, start=(_STARTS + stage) * self.explore)
        simulator.reset(simulator.scenarios(keys))
        exciter = HeldLevels()
        exciter.start(simulator.actions, keys, simulator.dtype)
        self.reset(simulator.n)
        memory = Memory(self.model.context)
        own = (torch.arange(simulator.n) % 2 == 0) & (stage > 0)
        alive = torch.ones(simulator.n, dtype=torch.bool)
        windows: list[Window] = []
        used = 0
        for _ in range(simulator.problem.horizon):
            m = simulator.measure(self.horizon)
            window = memory.push(m)
            windows.append(_rows(window, alive.nonzero().flatten()))
            u = torch.where(own[:, None], self.act(m).u, exciter(m))
            t = simulator.step(u)
            used += int(alive.sum())
            alive = alive & ~t.ended
            if not bool(alive.any()):
                break
        return _joined(windows), used

    def _loss(self, window: Window, length: int) -> Float[Tensor, ""]:
        """Mean cost of rollouts per control step."""
        assert self.model is not None  # noqa: S101 - bind has seen to it
        m, objective = window.now, self.problem.objective
        h: Hidden = self.model.init(window)
        state = self._policy.initial_state(m.n)
        Z, U, extra = [], [], torch.zeros(m.n, dtype=m.y.dtype)
        y = m.y
        for _ in range(length):
            raw, state = self._policy(self.observe(y), state)
            u = self._through(to_action(self.problem.actions, raw.to(y)))
            if self.doubt and (far := self.model.doubt(h, u)) is not None:
                extra = extra + self.doubt * torch.relu(far - 1)
            h = self.model.step(h, u)
            y, z = self.model.output(h)
            Z.append(z)
            U.append(u)
            if objective.failure and (lost := self.model.failing(h)) is not None:
                extra = extra + objective.failure * lost
        cost = objective.plan_cost(torch.stack(Z, 1), torch.stack(U, 1), m.u_prev, m.references(length)) + extra
        finite = torch.isfinite(cost)
        return torch.where(finite, cost, 0.0).sum() / finite.sum().clamp(min=1) / length

    def _through(self, u: Tensor) -> Tensor:
        """Rounding of integer actions with the gradient of the identity (straight-through; Bengio et al. 2013)."""
        if self.problem.actions.continuous:
            return u
        return u + (self.problem.actions.project(u) - u).detach()

    @torch.no_grad()
    def _validate(self, pool: Window) -> float:
        """Cost of full-length rollouts from fixed starts."""
        rows = torch.linspace(0, len(pool.y) - 1, min(self.batch, len(pool.y))).long()
        return float(self._loss(_rows(pool, rows), self.horizon))


def _rows(window: Window, rows: Tensor) -> Window:
    m = window.now
    x = None if m.x is None else tree_index(m.x, rows)
    p = None if m.p is None else tree_index(m.p, rows)
    now = type(m)(m.k[rows], m.y[rows], m.r[rows], m.u_prev[rows], x, p)
    return Window(window.y[rows], window.u[rows], now)


def _joined(windows: list[Window]) -> Window:
    cat = torch.cat
    first = windows[0].now
    xs, ps = [w.now.x for w in windows], [w.now.p for w in windows]
    x = None if first.x is None else _join_trees(xs)  # type: ignore[arg-type]
    p = None if first.p is None else _join_trees(ps)  # type: ignore[arg-type]
    now = type(first)(
        cat([w.now.k for w in windows]), cat([w.now.y for w in windows]), cat([w.now.r for w in windows]),
        cat([w.now.u_prev for w in windows]), x, p,  # type: ignore[arg-type]
    )  # fmt: skip
    return Window(cat([w.y for w in windows]), cat([w.u for w in windows]), now)


def _join_trees(trees: list[Hidden]) -> Hidden:
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat([t for t in trees if isinstance(t, Tensor)])
    return {name: torch.cat([t[name] for t in trees if isinstance(t, dict)]) for name in first}
