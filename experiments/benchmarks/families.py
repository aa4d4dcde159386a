"""Controllers against peers: sampling MPC, and the building of mixed-integer programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyomo.environ as pyo
import torch
from pyomo.contrib.appsi.solvers import Highs
from torch import Tensor, nn

from steersman.controllers.mip.bounds import linear_bounds
from steersman.controllers.mip.encode import Encoder
from steersman.controllers.mip.program import unroll
from steersman.controllers.mip.solve import load
from steersman.controllers.planning.sampling import MPPI
from steersman.dynamics.base import Dynamics, Hidden, Trajectories, Window
from steersman.dynamics.windowed.relu import Kind, ReluLayer, ReluSystem
from steersman.envs.actions import ActionSet
from steersman.envs.objective import L1, Objective, Quadratic
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement
from steersman.experiments.benchmarks.base import Progress, Row, peer, throughput

STATES, ACTIONS, WIDTH, HORIZON, EPISODES = 4, 2, 64, 15, 64
BUILD_HORIZON = 5


def rows(progress: Progress) -> Iterator[Row]:
    """Measurements against pytorch-mppi, and OMLT with Pyomo."""
    names = [peer(package) for package in ("pytorch-mppi", "omlt")]
    for i, (samples, bar) in enumerate(((64, 3.0), (512, 1.0))):  # the more samples, the less a batch can save
        progress(i / 3, f"sampling MPC, {samples} samples")
        ours, theirs = throughput(_mppi(samples), _peer_mppi(samples))
        case = f"MPPI, MLP 64-64, horizon {HORIZON}, {samples} samples x {EPISODES} episodes"
        yield Row(case, "rollouts / CPU s", ours, theirs, names[0], bar)
    progress(2 / 3, "building mixed-integer programs")
    ours, theirs = throughput(_build, _peer_build)
    yield Row(f"MIP of a 2x64 network, H = {BUILD_HORIZON}", "builds / CPU s", ours, theirs, f"{names[1]} + Pyomo", 5.0)


# ------------------------------------------------------------------ sampling MPC


class _Network(Dynamics):
    """A fixed random network ``y+ = y + f(y, u)``, z = y."""

    context = 1

    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp()

    def fit(self, data: Trajectories) -> _Network:
        return self

    def init(self, window: Window) -> Hidden:
        return window.y[:, -1]

    def step(self, h: Hidden, u: Tensor, dt: Tensor | None = None, w: Tensor | None = None) -> Hidden:
        assert isinstance(h, Tensor)  # noqa: S101 - narrows the type
        after: Tensor = h + 0.1 * self.net(torch.cat([h, u], dim=1))
        return after

    def output(self, h: Hidden) -> tuple[Tensor, Tensor]:
        assert isinstance(h, Tensor)  # noqa: S101 - narrows the type
        return h, h


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise((STATES + ACTIONS, WIDTH, WIDTH, STATES))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _problem() -> ControlProblem:
    names = tuple(f"y{i}" for i in range(STATES))
    cost = Objective(
        (
            Quadratic(name="state", on="z", weights=(1.0,) * STATES),
            Quadratic(name="action", on="u", weights=(0.1,) * ACTIONS),
        )
    )
    return ControlProblem(ActionSet((-1.0,) * ACTIONS, (1.0,) * ACTIONS), cost, 0.1, 100, names, names)


def _mppi(samples: int) -> Callable[[], int]:
    controller = MPPI(HORIZON, samples, iterations=1).bind(_problem(), _Network())
    controller.reset(EPISODES)
    y = torch.randn(EPISODES, STATES, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(EPISODES, dtype=torch.int64)
    m = Measurement(zero, y, torch.zeros(EPISODES, 1, STATES), torch.zeros(EPISODES, ACTIONS))

    def work() -> int:
        turns = 2048 // samples
        for _ in range(turns):
            controller.act(m)
        return turns * EPISODES * samples

    return work


def _peer_mppi(samples: int) -> Callable[[], int]:
    import pytorch_mppi

    net = _mlp()
    one = torch.ones(ACTIONS)

    def dynamics(x: Tensor, u: Tensor) -> Tensor:
        after: Tensor = x + 0.1 * net(torch.cat([x, u], dim=1))
        return after

    def cost(x: Tensor, u: Tensor) -> Tensor:
        return x.square().sum(dim=1) + 0.1 * u.square().sum(dim=1)

    planners = [
        pytorch_mppi.MPPI(dynamics, cost, STATES, 0.25 * torch.eye(ACTIONS), samples, HORIZON, u_min=-one, u_max=one)
        for _ in range(EPISODES)
    ]
    y = torch.randn(EPISODES, STATES, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def work() -> int:
        for planner, row in zip(planners, y, strict=True):
            planner.command(row)
        return EPISODES * samples

    return work


# ------------------------------------------------------------------ mixed-integer programs


def _layers() -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Weights ``[in, out]`` and biases."""
    rng = np.random.default_rng(0)
    sizes = (STATES + ACTIONS, WIDTH, WIDTH, STATES)
    return [(rng.normal(size=(a, b)) / np.sqrt(a), 0.1 * rng.normal(size=b)) for a, b in itertools.pairwise(sizes)]


def _build() -> int:
    """Bounds, rows and the transfer to HiGHS, from a measured state."""
    tensors = [(torch.as_tensor(w.T.copy()), torch.as_tensor(b)) for w, b in _layers()]
    hidden = tuple(ReluLayer(w, b, torch.full((len(b),), Kind.RELU, dtype=torch.int8)) for w, b in tensors[:-1])
    eye, none = torch.eye(STATES, dtype=torch.float64), torch.zeros(STATES, ACTIONS, dtype=torch.float64)
    zero = torch.zeros(STATES, dtype=torch.float64)
    system = ReluSystem(hidden, tensors[-1][0], torch.cat([eye, none], 1), tensors[-1][1], eye, zero, 1)
    program = unroll(system, np.full(STATES, 0.3), _problem().actions, BUILD_HORIZON)
    bounds = linear_bounds(program)
    encoder = Encoder(program, bounds)
    encoder.network(bounds)
    encoder.actions(_problem().actions)
    state = L1(name="state", on="z", weights=(1.0,) * STATES)
    encoder.objective([(state,)] * BUILD_HORIZON, np.zeros((BUILD_HORIZON, STATES)), np.zeros(ACTIONS))
    load(encoder.arrays())
    return 1


def _peer_build() -> int:
    """One OMLT block per step in a box around the origin, the same cost, translated for HiGHS."""
    from omlt import OmltBlock
    from omlt.neuralnet import NetworkDefinition, ReluBigMFormulation
    from omlt.neuralnet.layer import DenseLayer, InputLayer

    net = NetworkDefinition(scaled_input_bounds=dict.fromkeys(range(STATES), (-3.0, 3.0)) | {4: (-1, 1), 5: (-1, 1)})
    before: Any = InputLayer([STATES + ACTIONS])
    net.add_layer(before)
    layers = _layers()
    for i, (w, b) in enumerate(layers):
        kind = "relu" if i < len(layers) - 1 else "linear"
        layer = DenseLayer([w.shape[0]], [w.shape[1]], activation=kind, weights=w, biases=b)
        net.add_layer(layer)
        net.add_edge(before, layer)
        before = layer
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(BUILD_HORIZON + 1), range(STATES), bounds=(-3, 3))
    model.size = pyo.Var(range(1, BUILD_HORIZON + 1), range(STATES))
    model.net = OmltBlock(range(BUILD_HORIZON))
    model.rows = pyo.ConstraintList()
    for i in range(STATES):
        model.x[0, i].fix(0.3)
    for j in range(BUILD_HORIZON):
        model.net[j].build_formulation(ReluBigMFormulation(net))
        for i in range(STATES):
            after = model.x[j + 1, i]
            model.rows.add(model.net[j].inputs[i] == model.x[j, i])
            model.rows.add(after == model.x[j, i] + model.net[j].outputs[i])
            model.rows.add(model.size[j + 1, i] >= after)
            model.rows.add(model.size[j + 1, i] >= -after)
    model.cost = pyo.Objective(expr=sum(model.size.values()))
    Highs().set_instance(model)
    return 1
