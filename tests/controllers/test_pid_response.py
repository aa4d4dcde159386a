"""PID on a first-order plant against closed forms: steps, ramps, saturation, restarts and tuning."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_test_plants import Array
from torch import Tensor

from steersman.controllers.base import Outcome, Training
from steersman.controllers.classical.pid import PID
from steersman.controllers.rollout import run_episodes
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import ControlProblem, Plant
from steersman.envs.simulator import Measurement, PlantSimulator


class FirstOrder(Plant):
    """``dx/dt = (-x + K u) / tau``, sampled exactly; y = (x, set point), z the distance between them."""

    gradient = "exact"
    tau, gain = 2.0, 1.5

    def __init__(self, bound: float = 1e9, point: float = 1.0, later: tuple[int, float] | None = None) -> None:
        self.dt, self.hold, self.horizon = 0.25, 2, 300 if later else 40
        self.actions = ActionSet((-bound,), (bound,))
        self.objective = Objective((Quadratic(name="e", on="z", weights=(1.0,)),))
        self.measured, self.performed, self.exogenous = ("x", "set point"), ("error",), (1,)
        self.point, self.later = point, later
        self.a = float(np.exp(-self.period / self.tau))
        self.b = self.gain * (1 - self.a)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(key), 1, dtype=self.dtype)

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return self.a * x + self.b * u

    def aim(self, k: Tensor) -> Tensor:
        first = torch.full((len(k), 1), self.point, dtype=self.dtype)
        return first if self.later is None else torch.where(k[:, None] < self.later[0], first, self.later[1])

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return torch.cat([x, self.aim(k)], dim=1)

    def perform(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x - self.aim(k)


def response(plant: FirstOrder, controller: PID, steps: int, restart: int | None = None) -> tuple[Array, Array]:
    """Outputs ``x_0 .. x_steps`` and actions; the controller, not the plant, starts again at step ``restart``."""
    controller.bind(plant.problem)
    controller.reset(1)
    simulator = PlantSimulator(plant, 1)
    simulator.reset(simulator.scenarios(noise.keys(0, 1)))
    x, u = [float(simulator.x)], []  # type: ignore[arg-type]
    for k in range(steps):
        if k == restart:
            controller.reset(1)
        action = controller.act(simulator.measure()).u
        simulator.step(action)
        u.append(float(action))
        x.append(float(simulator.x))  # type: ignore[arg-type]
    return np.array(x), np.array(u)


def pid(**gains: float) -> PID:
    return PID(error=((1.0, -1.0),), **gains)


def test_proportional_control_follows_the_closed_form_to_its_offset() -> None:
    plant, kp, steps = FirstOrder(), 2.0, 30
    x, u = response(plant, pid(kp=kp), steps)
    pole = plant.a - plant.b * kp
    rest = plant.b * kp / (1 - pole)
    np.testing.assert_allclose(x, rest * (1 - pole ** np.arange(steps + 1)), atol=1e-10)
    assert rest == pytest.approx(plant.gain * kp / (1 + plant.gain * kp)), "K kp / (1 + K kp), whatever the sampling"
    np.testing.assert_allclose(u, -kp * (x[:-1] - 1), atol=1e-10)


@given(kp=st.floats(0.1, 1.2), ki=st.floats(0.05, 0.9))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_integral_action_follows_the_modes_of_the_closed_loop_without_offset(kp: float, ki: float) -> None:
    """``x_k = 1 + sum_i c_i lambda_i^k``: eigenvalues of the loop of the plant and the sum of errors."""
    plant, steps = FirstOrder(), 40
    h = plant.period
    # (e, I) with e = x - 1, I the integral before the present error: u = -kp e - ki (I + h e).
    loop = np.array([[plant.a - plant.b * (kp + ki * h), -plant.b * ki], [h, 1.0]])
    shift = np.array([plant.a - 1, 0.0])  # e+ = a e + b u + (a - 1)
    rest = np.linalg.solve(np.eye(2) - loop, shift)
    modes, vectors = np.linalg.eig(loop)
    weights = np.linalg.solve(vectors, np.array([-1.0, 0.0]) - rest)
    want = np.real(vectors[0] * weights @ modes[:, None] ** np.arange(steps + 1)) + rest[0] + 1
    x, _ = response(plant, pid(kp=kp, ki=ki), steps)
    np.testing.assert_allclose(x, want, atol=1e-8)
    assert rest[0] == pytest.approx(0, abs=1e-12)


def fed(controller: PID, errors: list[float], bound: float = 1e9) -> list[float]:
    """Actions in the face of given errors."""
    problem = ControlProblem(ActionSet((-bound,), (bound,)), Objective(()), 0.5, 100, ("e",), ("e",))
    controller.bind(problem)
    controller.reset(1)
    return [float(controller.act(shown([e])).u) for e in errors]


def shown(errors: list[float]) -> Measurement:
    y = torch.tensor(errors, dtype=torch.float64)[:, None]
    return Measurement(torch.zeros(len(y), dtype=torch.int64), y, 0 * y[:, None], 0 * y)


def test_each_part_by_hand() -> None:
    errors = [1.0, 3.0, 2.0]
    assert fed(PID(kp=2.0), errors) == [-2.0, -6.0, -4.0]
    assert fed(PID(kp=0.0, ki=4.0), errors) == [-2.0, -8.0, -12.0]  # 4 x 0.5 x the sum so far
    assert fed(PID(kp=0.0, kd=1.0), errors) == [0.0, -4.0, 2.0]  # differences over 0.5, none at first
    assert fed(PID(kp=2.0, ki=4.0, kd=1.0), errors) == [-4.0, -18.0, -14.0]


def test_the_integral_stands_still_while_it_would_push_further_out() -> None:
    """Bounds of 3: the first two errors saturate; once they change sign the loop acts at once."""
    u = fed(PID(kp=1.0, ki=4.0), [2.0, 2.0, 0.5, -0.5], bound=3.0)
    # 1: -(2 + 4 x 1) < -3, so nothing is added. 2: likewise. 3: -(0.5 + 4 x 0.25) = -1.5. 4: 0.5 - 4 x (0.25 - 0.25).
    assert u == [-2.0, -2.0, -1.5, 0.5]
    assert fed(PID(kp=1.0, ki=4.0), [-2.0, -2.0, -0.5, 0.5], bound=3.0) == [2.0, 2.0, 1.5, -0.5]


def test_an_integral_that_pulls_back_from_a_bound_goes_on() -> None:
    """Out of bounds by the proportional part of an error that unwinds the integral: it must be counted."""
    u = fed(PID(kp=10.0, ki=4.0), [-0.1, -0.1, 0.2, 0.0], bound=1.5)
    # Integrals 0.05 and 0.1 (u = 1.2, 1.4); the third error pushes down to -2 + 0 < -1.5 and stands still: u = -1.6.
    assert u == pytest.approx([1.2, 1.4, -1.5, 0.4])
    held = fed(PID(kp=-10.0, ki=4.0), [-0.1, -0.1, 0.2, 0.0], bound=1.5)
    # kp of the other sign: the third action 2 + 0 is beyond the upper bound, but the integral falls: counted.
    assert held == pytest.approx([-0.8, -0.6, 1.5, 0.0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_overshoot_does_not_grow_with_the_time_in_saturation(sign: float) -> None:
    """A set point out of reach for 80 or 150 steps, then one within: as if the controller had begun just then."""

    def after(wait: int, fresh: bool = False) -> Array:
        plant = FirstOrder(bound=1.0, point=10.0 * sign, later=(wait, 0.5 * sign))
        controller = pid(kp=1.0, ki=0.4)
        x, u = response(plant, controller, wait + 60, restart=wait if fresh else None)
        assert (u[:wait] == sign).all()
        return x[wait:]

    long = after(80)
    np.testing.assert_allclose(long, after(150), atol=1e-9)
    np.testing.assert_allclose(long, after(80, fresh=True), atol=1e-9)
    assert long[0] == pytest.approx(1.5 * sign) and long[-1] == pytest.approx(0.5 * sign, abs=1e-3)


def test_a_restarted_row_forgets_its_integral_and_its_slope() -> None:
    problem = ControlProblem(ActionSet((-9.0,), (9.0,)), Objective(()), 0.5, 100, ("e",), ("e",))
    controller = PID(kp=0.0, ki=2.0, kd=1.0).bind(problem)
    controller.reset(2)
    controller.act(shown([1.0, 1.0]))
    controller.reset(2, torch.tensor([True, False]))
    assert controller.act(shown([2.0, 2.0])).u[:, 0].tolist() == [-2.0, -5.0]
    controller.reset(2)
    assert controller.act(shown([2.0, 2.0])).u[:, 0].tolist() == [-2.0, -2.0]


def test_each_loop_has_its_gains_and_its_error() -> None:
    problem = ControlProblem(
        ActionSet((-9.0,) * 2, (9.0,) * 2), Objective(()), 1.0, 9, ("a", "clock", "b"), ("a",), (1,)
    )
    m = Measurement(
        torch.zeros(1, dtype=torch.int64), torch.tensor([[1.0, 5.0, 2.0]], dtype=torch.float64),
        torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64),
    )  # fmt: skip

    def u(controller: PID) -> list[float]:
        controller.bind(problem).reset(1)
        return controller.act(m).u[0].tolist()

    assert u(PID(kp=(1.0, 3.0))) == [-1.0, -6.0], "loops take the outputs that actions influence"
    assert u(PID(kp=1.0, error=((0.0, 1.0, 0.0), (1.0, 0.0, -1.0)))) == [-5.0, 1.0]


class Following(FirstOrder):
    """The same plant, whose set point is the reference of x instead of an output."""

    def __init__(self, performed: tuple[str, ...] = ("u squared", "x"), **more: Any) -> None:
        super().__init__(**more)
        self.measured, self.performed, self.exogenous = ("x",), performed, ()
        self.objective = Objective((Quadratic(name="e", on="e", weights=(0.0, 1.0)),))

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x

    def perform(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return torch.cat([0 * x, x], dim=1)

    def reference(self, k: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.cat([torch.zeros(len(k), 1, dtype=self.dtype), self.aim(k)], dim=1)


@pytest.mark.parametrize("gains", [{"kp": 0.8}, {"kp": 0.5, "ki": 0.4}])
def test_a_stated_reference_is_followed_as_a_measured_one_is(gains: dict[str, float]) -> None:
    """By default the error is the output minus the reference of its name; a change of it on the way included."""
    settings = {"point": 1.0, "later": (20, -2.0), "bound": 5.0}
    x, u = response(Following(**settings), PID(**gains), 40)
    wanted_x, wanted_u = response(FirstOrder(**settings), pid(**gains), 40)
    np.testing.assert_allclose(x, wanted_x, rtol=1e-12)
    np.testing.assert_allclose(u, wanted_u, rtol=1e-12)
    assert abs(x[-1]) > 1.0, "it has left zero, to which it would regulate without the reference"


def test_a_step_of_the_reference_is_no_kick() -> None:
    """The derivative is that of the output, which does not move at once."""
    controller = PID(kp=0.0, kd=1.0)
    _, u = response(Following(point=1.0), controller, 3)
    assert u.tolist() == [0.0, 0.0, 0.0]
    y = torch.zeros(1, 1, dtype=torch.float64)
    for point in (0.0, 7.0, 7.0):
        m = Measurement(torch.zeros(1, dtype=torch.int64), y, torch.tensor([[[0.0, point]]], dtype=torch.float64), y)
        assert float(controller.act(m).u) == 0.0
    m = Measurement(torch.zeros(1, dtype=torch.int64), y + 1.0, torch.zeros(1, 1, 2, dtype=torch.float64), y)
    assert float(controller.act(m).u) == -2.0


def test_tuning_knows_the_reference() -> None:
    plant = Following(bound=3.0)
    controller = PID(kp=0.05, ki=0.05, tune=12, scenarios=2).bind(plant.problem)
    controller.train(Training(lambda n: PlantSimulator(plant, n), seed=3))
    other = pid(kp=0.05, ki=0.05, tune=12, scenarios=2).bind(FirstOrder(bound=3.0).problem)
    other.train(Training(lambda n: PlantSimulator(FirstOrder(bound=3.0), n), seed=3))
    assert controller.state_dict()["gains"].tolist() == other.state_dict()["gains"].tolist()


def test_references_that_are_not_followed_are_said() -> None:
    followed, stated, renamed = PID(), PID(error=((1.0,),)), PID()
    assert followed.bind(Following().problem).notes == ()
    response(Following(), followed, 3)
    response(Following(), stated, 3)
    response(Following(performed=("u squared", "level")), renamed, 3)
    assert followed.notes == ()
    assert stated.notes == ("its stated error knows the references of x only as far as measured outputs hold them",)
    assert renamed.notes == (
        "it does not follow the references of level: none of its loops measures an output of that name",
    )
    response(Following(point=0.0), stated, 3)
    assert stated.notes == (), "a reference of zero is none"


def test_tuning_keeps_the_best_of_what_it_tries_on_the_given_scenarios() -> None:
    plant = FirstOrder(bound=3.0)

    def simulate(n: int) -> PlantSimulator:
        return PlantSimulator(plant, n)

    controller = PID(kp=0.05, ki=0.05, error=((1.0, -1.0),), tune=12, decades=1.0, scenarios=2).bind(plant.problem)
    spent = controller.train(Training(simulate, seed=3))
    assert spent.plant_steps == 12 * 2 * plant.horizon
    gains = controller.state_dict()["gains"][:, 0]
    low, high = torch.tensor([0.005, 0.005, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    assert bool((gains >= low).all() and (gains <= high).all())

    def cost(kp: float, ki: float) -> float:
        law = pid(kp=kp, ki=ki).bind(plant.problem)
        law.reset(1)
        sim = simulate(1)
        return float(run_episodes(sim, sim.scenarios(noise.keys(9, 1)), lambda m: law.act(m).u).cost)

    tuned = cost(float(gains[0]), float(gains[1]))
    assert tuned < 0.5 * cost(0.05, 0.05)
    unit = noise.uniform(noise.fold(noise.keys(3, 12), 0x71D), 3, 1)
    scales = 10 ** (2 * unit[:, :, 0] - 1)
    scales[0] = 1.0
    assert tuned == pytest.approx(min(cost(0.05 * float(s[0]), 0.05 * float(s[1])) for s in scales))


def measured(plant: FirstOrder, k: int, y: list[float], r: float = 0.0) -> Measurement:
    one = torch.tensor([y], dtype=torch.float64)
    reference = torch.full((1, 1, plant.problem.nz), r, dtype=torch.float64)
    return Measurement(torch.tensor([k]), one, reference, torch.zeros(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("lost", [[], [2], [0], [0, 1, 4]])
def test_what_was_not_measured_is_neither_summed_up_nor_a_rate(lost: list[int]) -> None:
    """Steps without a measurement leave the integral as it is, whatever stands in for the output."""
    plant = FirstOrder(bound=100.0)
    law = pid(kp=1.0, ki=0.5, kd=0.3).bind(plant.problem)
    law.reset(1)
    period, integral, before = plant.problem.period, 0.0, None
    for k in range(6):
        y = 1.0 + 0.3 * k
        found = law.act(measured(plant, k, [float("nan") if k in lost else y] + [0.0] * (plant.problem.ny - 1)))
        if k in lost:
            assert int(found.outcome) == int(Outcome.NEUTRAL)
            before = None
            continue
        integral += y * period
        rate = 0.0 if before is None else (y - before) / period
        assert float(found.u) == pytest.approx(-(1.0 * y + 0.5 * integral + 0.3 * rate))
        before = y


def test_no_step_with_an_unknown_reference_is_summed_up() -> None:
    plant = FirstOrder(bound=100.0)
    law, other = pid(ki=0.5).bind(plant.problem), pid(ki=0.5).bind(plant.problem)
    for each in (law, other):
        each.reset(1)
    blank = [1.0] + [0.0] * (plant.problem.ny - 1)
    assert int(law.act(measured(plant, 0, blank, float("inf"))).outcome) == int(Outcome.NEUTRAL)
    torch.testing.assert_close(law.act(measured(plant, 1, blank)).u, other.act(measured(plant, 0, blank)).u)
