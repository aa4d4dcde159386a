"""Costs of rollouts with their gradients: through a model, or along the real plant with a model's Jacobians."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.base import Controller, Training
from steersman.controllers.neural.experience import Experience, experience
from steersman.controllers.plan import PlanCost, plan_cost, with_slopes
from steersman.controllers.rollout import run_episodes
from steersman.dynamics.base import Dynamics, Hidden, Prediction, Recorder, Trajectories, Window
from steersman.dynamics.estimation.base import Windows
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
        curve: Plant steps, and the mean cost of episodes under the policy of then.
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
        self.model: Dynamics = controller.model.in_training()
        self.used = 0
        self.curve: list[tuple[int, float]] = []

    @abstractmethod
    def loss(self, length: int) -> Float[Tensor, ""]:
        """Mean cost per control step of fresh rollouts, with its gradient."""

    @abstractmethod
    def validate(self, length: int) -> float:
        """Cost of the present policy, comparable until :meth:`renew`."""

    def renew(self) -> None:  # noqa: B027 - optional hook
        """Called now and then: starting points that the policy itself visits may be taken up."""

    def seen(self) -> Float[Tensor, "k ny"] | None:
        """Outputs that the policy should tell apart, if there are any yet."""
        return None

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
    """Rollouts through the model, from windows of episodes under exploration, later of those under the policy.

    Through the plant itself ("truth") every step of a rollout is charged as a plant step.

    Attributes:
        data: The episodes so far.
        renewed_by: The controller's state at each renewal, in the order of the points of :attr:`curve`.
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
        *,
        deployed: Law | None = None,
        ahead: int | None = None,
        begun: tuple[Dynamics, Window] | None = None,
    ) -> None:
        """``explore``, ``doubt`` and ``penalty`` are those of ``NeuralPolicy``.

        Args:
            controller: See :class:`Rollouts`, as the next four.
            law: What is trained.
            memory: Fresh memory.
            training: What the training may use.
            batch: Rollouts per gradient step.
            explore: Episodes that starting points are taken from.
            doubt: Price of the model's doubt.
            penalty: Price of soft constraints.
            deployed: What is validated, where ``law`` draws its decisions; the same by default.
            ahead: Longest rollout; a whole episode by default.
            begun: Another model than the controller's and starting points to go on from, instead of exploration.
        """
        super().__init__(controller, law, memory, training, batch)
        self.explore, self.deployed = explore, deployed
        self.ahead = self.problem.horizon if ahead is None else ahead
        self.cost = PlanCost(with_slopes(self.problem), doubt, penalty)
        self.gen = torch.Generator().manual_seed(training.seed)
        self.data: list[Trajectories] = []
        self.renewed_by: list[dict[str, Tensor]] = []
        if begun is None:
            self._take(self._explore())
        else:
            self.model, self.pool = begun

    def renew(self) -> None:
        """Take starting points from fresh episodes under the policy."""
        self.renewed_by.append({name: t.clone() for name, t in self.controller.state_dict().items()})
        found = self._own(len(self.renewed_by))
        self.curve.append((self.used, float(found.cost.mean())))
        self._take(found)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Rollouts`: of starting points, the policies that they were found under."""
        return {"gen": self.gen.get_state(), "used": self.used, "curve": self.curve, "renewed by": self.renewed_by}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Rollouts`."""
        now = {name: t.clone() for name, t in self.controller.state_dict().items()}
        for weights in state["renewed by"]:
            self.controller.load_state_dict(weights)
            self.renew()
        self.controller.load_state_dict(now)
        self.gen.set_state(state["gen"])
        self.used, self.curve = int(state["used"]), list(state["curve"])

    def seen(self) -> Float[Tensor, "k ny"]:
        """See :class:`Rollouts`."""
        return self.pool.y[self._fixed(), -1]

    def loss(self, length: int) -> Float[Tensor, ""]:
        """See :class:`Rollouts`."""
        rows = torch.randint(len(self.pool.y), (self.batch,), generator=self.gen)
        return self._cost(self.pool.rows(rows), length)

    @torch.no_grad()
    def validate(self, length: int) -> float:
        """Cost of rollouts from fixed starts."""
        return float(self._cost(self.pool.rows(self._fixed()), length, self.deployed))

    def _fixed(self) -> Tensor:
        return torch.linspace(0, len(self.pool.y) - 1, min(self.batch, len(self.pool.y))).long()

    def _cost(self, window: Window, length: int, law: Law | None = None) -> Float[Tensor, ""]:
        m, model, law = window.now, self.model, law or self.law
        if model.needs_state:
            self.used += length * m.n
        h, state, y, U = model.init(window), self.memory(m.n), m.y, []
        recorder = Recorder(model, **self.cost.asks)
        for _ in range(length):
            u, state = law(y, state)
            h = recorder.step(h, u)
            y = recorder.y
            U.append(u)
        return self._mean(self.cost(recorder.prediction(), torch.stack(U, dim=1), m), length)

    def _explore(self) -> Experience:
        """Episodes under the exciter alone."""
        simulator, keys = self.training.simulate(self.explore), self._keys(0)
        exciter = self.training.excite()
        exciter.start(simulator.actions, keys, simulator.dtype)
        return experience(simulator, keys, exciter, context=self.model.context, ahead=self.ahead)

    def _own(self, stage: int) -> Experience:
        """Episodes under the policy."""
        simulator = self.training.simulate(self.explore)
        self.controller.reset(simulator.n)
        return experience(
            simulator, self._keys(stage), lambda m: self.controller.act(m).u,
            context=self.model.context, ahead=self.ahead,
        )  # fmt: skip

    def _take(self, found: Experience) -> None:
        self.pool, self.used = found.starts, self.used + found.steps
        self.data.append(found.data)

    def _keys(self, stage: int) -> Tensor:
        return self.training.keys(self.explore, start=(_STARTS + stage) * self.explore)


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
        self.alive = torch.ones(batch, dtype=torch.bool, device=self.simulator.device)

    def whole(self, length: int) -> bool:
        """See :class:`Rollouts`: whether new episodes begin, since simulators in the middle of some are not kept."""
        return self.left < length or not bool(self.alive.any())

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Rollouts`."""
        return {"round": self.round, "used": self.used, "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`Rollouts`."""
        self.round, self.used, self.left = int(state["round"]), int(state["used"]), 0
        self.curve = list(state["curve"])

    def seen(self) -> Float[Tensor, "k ny"]:
        """See :class:`Rollouts`; episodes must have begun."""
        return self.y[:, -1]

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
        self.alive = torch.ones(self.simulator.n, dtype=torch.bool, device=self.simulator.device)
        self.left = self.problem.horizon
        window = Windows(self.model.context).push(self.simulator.measure())
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
        self.curve.append((self.used, float(found.cost.mean())))
        self.used += found.plant_steps
        return self.curve[-1][1] / self.problem.horizon
