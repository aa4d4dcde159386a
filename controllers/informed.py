"""Costs of rollouts with their gradients: through a model, or along the real plant with a model's Jacobians."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Memory, Training
from steersman.controllers.plan import PlanCost, plan_cost, with_slopes
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics, Hidden, Prediction, Recorder, Window
from steersman.dynamics.collect import HeldLevels
from steersman.envs import noise
from steersman.envs.plant import ControlProblem
from steersman.envs.scenarios import Scenarios

Law = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Differentiable control law: from outputs ``[n, ny]`` and memory to actions ``[n, m]`` and memory."""
_STARTS, _EPISODES, _VALIDATE = 0x57A27, 0xE915, 0x7E57


class Rollouts(ABC):
    """A source of rollouts for the training of a policy.

    Attributes:
        used: Plant control steps so far.
    """

    def __init__(
        self, controller: Controller, law: Law, memory: Callable[[int], Tensor], training: Training, batch: int
    ) -> None:
        """Attach a policy.

        Args:
            controller: The policy as a controller, bound to problem and model.
            law: The same policy, differentiable.
            memory: Fresh memory of the policy for n rows.
            training: What the training may use.
            batch: Rollouts per gradient step.
        """
        assert controller.model is not None  # noqa: S101 - a controller without model refuses to be bound
        self.controller, self.law, self.memory, self.training, self.batch = controller, law, memory, training, batch
        self.problem: ControlProblem = controller.problem
        self.model: Dynamics = controller.model
        self.used = 0

    @abstractmethod
    def loss(self, length: int) -> Float[Tensor, ""]:
        """Mean cost per control step of fresh rollouts, with its gradient."""

    @abstractmethod
    def validate(self, length: int) -> float:
        """Cost of the present policy, comparable until :meth:`renew`."""

    def renew(self) -> None:  # noqa: B027 - optional hook
        """Called halfway: starting points that the policy itself visits may be taken up."""

    def whole(self, length: int) -> bool:
        """Whether :meth:`state_dict` holds all that the next rollouts, of ``length`` steps, depend on."""
        return True

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What the rollouts so far have changed, for checkpoints."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; the policy must have its weights of then already."""

    def _mean(self, cost: Float[Tensor, "n"], length: int) -> Float[Tensor, ""]:
        finite = torch.isfinite(cost)
        return torch.where(finite, cost, 0.0).sum() / finite.sum().clamp(min=1) / length


class ModelRollouts(Rollouts):
    """Rollouts through the model, from windows of episodes under exploration, later half of them under the policy.

    Through the plant itself ("truth") every step of a rollout is charged as a plant step.
    """

    def __init__(
        self,
        controller: Controller,
        law: Law,
        memory: Callable[[int], Tensor],
        training: Training,
        batch: int,
        explore: int,
        doubt: float,
        penalty: float,
    ) -> None:
        """See :class:`~steersman.controllers.neural.NeuralPolicy` for ``explore``, ``doubt`` and ``penalty``."""
        super().__init__(controller, law, memory, training, batch)
        self.explore = explore
        self.cost = PlanCost(with_slopes(self.problem), doubt, penalty)
        self.gen = torch.Generator().manual_seed(training.seed)
        self.pool = self._starts(0)
        self._renewed_by: dict[str, Tensor] = {}

    def renew(self) -> None:
        """Take starting points from fresh episodes, half of them under the policy."""
        self._renewed_by = {name: t.clone() for name, t in self.controller.state_dict().items()}
        self.pool = self._starts(1)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Rollouts`: of starting points, the policy that they were found under."""
        return {"gen": self.gen.get_state(), "used": self.used, "renewed by": self._renewed_by}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Rollouts`."""
        if state["renewed by"]:
            now = {name: t.clone() for name, t in self.controller.state_dict().items()}
            self.controller.load_state_dict(state["renewed by"])
            self.renew()
            self.controller.load_state_dict(now)
        self.gen.set_state(state["gen"])
        self.used = int(state["used"])

    def loss(self, length: int) -> Float[Tensor, ""]:
        """See :class:`Rollouts`."""
        rows = torch.randint(len(self.pool.y), (self.batch,), generator=self.gen)
        return self._cost(self.pool.rows(rows), length)

    @torch.no_grad()
    def validate(self, length: int) -> float:
        """Cost of rollouts from fixed starts."""
        rows = torch.linspace(0, len(self.pool.y) - 1, min(self.batch, len(self.pool.y))).long()
        return float(self._cost(self.pool.rows(rows), length))

    def _cost(self, window: Window, length: int) -> Float[Tensor, ""]:
        m, model = window.now, self.model
        if model.needs_state:
            self.used += length * m.n
        h, state, y, U = model.init(window), self.memory(m.n), m.y, []
        recorder = Recorder(model, **self.cost.asks)
        for _ in range(length):
            u, state = self.law(y, state)
            h = recorder.step(h, u)
            y = recorder.y
            U.append(u)
        return self._mean(self.cost(recorder.prediction(), torch.stack(U, dim=1), m), length)

    def _starts(self, stage: int) -> Window:
        simulator, training = self.training.simulate(self.explore), self.training
        keys = training.keys(self.explore, start=(_STARTS + stage) * self.explore)
        simulator.reset(simulator.scenarios(keys))
        exciter = HeldLevels()
        exciter.start(simulator.actions, keys, simulator.dtype)
        self.controller.reset(simulator.n)
        memory = Memory(self.model.context)
        own = (torch.arange(simulator.n) % 2 == 0) & (stage > 0)
        alive = torch.ones(simulator.n, dtype=torch.bool)
        windows: list[Window] = []
        for _ in range(simulator.problem.horizon):
            m = simulator.measure(simulator.problem.horizon)
            windows.append(memory.push(m).rows(alive.nonzero().flatten()))
            u = torch.where(own[:, None], self.controller.act(m).u, exciter(m))
            t = simulator.step(u)
            self.used += int(alive.sum())
            alive = alive & ~t.ended
            if not bool(alive.any()):
                break
        return _joined(windows)


class PlantRollouts(Rollouts):
    """Rollouts on the plant itself, differentiated by the model's Jacobians at the measured windows.

    The estimator is that of stochastic value gradients (Heess et al. 2015, arXiv 1510.09142, SVG over the whole
    rollout): outputs take their values from the plant and their derivatives from the model, so the model's error
    bends the gradient but does not accumulate in the states. It serves plants without a gradient of their own:
    births, deaths and matching of agents are covered by the fitted model's response, the rounding of integer actions
    by the straight-through estimator. Episodes run on from rollout to rollout. Rollouts in which an episode ends
    give no gradient: the cost of losing it is not differentiated.
    """

    def __init__(
        self, controller: Controller, law: Law, memory: Callable[[int], Tensor], training: Training, batch: int
    ) -> None:
        """See :class:`Rollouts`."""
        super().__init__(controller, law, memory, training, batch)
        self.simulator = training.simulate(batch)
        self.judge = training.simulate(batch)
        self.exam = self.judge.scenarios(noise.fold(training.keys(batch), _VALIDATE))
        self.round, self.left = 0, 0
        self.alive = torch.ones(batch, dtype=torch.bool)

    def whole(self, length: int) -> bool:
        """See :class:`Rollouts`: whether new episodes begin, since simulators in the middle of some are not kept."""
        return self.left < length or not bool(self.alive.any())

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Rollouts`."""
        return {"round": self.round, "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Rollouts`."""
        self.round, self.used, self.left = int(state["round"]), int(state["used"]), 0

    def loss(self, length: int) -> Float[Tensor, ""]:
        """See :class:`Rollouts`; new episodes begin when ``length`` steps are not left, or no row is."""
        simulator = self.simulator
        if self.whole(length):
            keys = noise.fold(self.training.keys(self.batch, start=self.round * self.batch), _EPISODES)
            self.begin(simulator.scenarios(keys))
            self.round += 1
        return self.segment(length)

    def begin(self, scenarios: Scenarios) -> None:
        """Start the episodes that the next segments run along."""
        self.simulator.reset(scenarios)
        self.alive = torch.ones(self.simulator.n, dtype=torch.bool)
        self.left = self.problem.horizon
        window = Memory(self.model.context).push(self.simulator.measure())
        self.y, self.u = window.y, window.u
        self.state = self.memory(self.simulator.n)

    def segment(self, length: int) -> Float[Tensor, ""]:
        """Mean cost per step of the next ``length`` steps over rows whose episode goes on, with its gradient."""
        simulator, model = self.simulator, self.model
        m = first = simulator.measure(length)
        y, past, state = self.y, self.u, self.state
        Y, Z, U = [], [], []
        for _ in range(length):
            u, state = self.law(y[:, -1], state)
            h: Hidden = model.step(model.init(Window(y, past, m)), u)
            guess_y, guess_z = model.output(h)
            self.used += int(self.alive.sum())
            ended = simulator.step(u.detach()).ended
            self.alive = self.alive & ~ended
            m = simulator.measure(length)
            real = m.y.nan_to_num(0.0, 0.0, 0.0)
            y = torch.cat([y[:, 1:], (real + guess_y - guess_y.detach())[:, None]], dim=1)
            past = torch.cat([past, u[:, None]], dim=1)[:, 1:]
            Y.append(y[:, -1])
            Z.append(simulator.perform() + guess_z - guess_z.detach())
            U.append(u)
        self.y, self.u, self.state = y.detach(), past.detach(), state.detach()
        self.left -= length
        along = Prediction(torch.stack(Y, dim=1)[:, None], torch.stack(Z, dim=1)[:, None])
        cost = plan_cost(with_slopes(self.problem), along, torch.stack(U, dim=1), first)
        return self._mean(torch.where(self.alive, cost, torch.nan), length)

    def validate(self, length: int) -> float:
        """Mean cost of whole episodes on fixed scenarios."""
        self.controller.reset(self.judge.n)
        found = run_episodes(self.judge, self.exam, lambda m: self.controller.act(m).u)
        self.used += found.plant_steps
        return float(found.cost.mean()) / self.problem.horizon


def _joined(windows: list[Window]) -> Window:
    cat = torch.cat
    first = windows[0].now
    xs, ps, futures = ([getattr(w.now, name) for w in windows] for name in ("x", "p", "hindsight"))
    x, p, hindsight = (None if trees[0] is None else _join_trees(trees) for trees in (xs, ps, futures))
    now = type(first)(
        cat([w.now.k for w in windows]), cat([w.now.y for w in windows]), cat([w.now.r for w in windows]),
        cat([w.now.u_prev for w in windows]), x, p, hindsight,  # type: ignore[arg-type]
    )  # fmt: skip
    return Window(cat([w.y for w in windows]), cat([w.u for w in windows]), now)


def _join_trees(trees: list[Hidden]) -> Hidden:
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat([t for t in trees if isinstance(t, Tensor)])
    return {name: torch.cat([t[name] for t in trees if isinstance(t, dict)]) for name in first}
