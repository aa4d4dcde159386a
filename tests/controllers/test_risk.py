"""Risk of plans: the mean, the worst share and the worst of the particles of a model's noise."""

import pytest
import torch

from steersman.controllers.plan import PlanCost
from steersman.controllers.planning.adjoint import Adjoint
from steersman.controllers.planning.sampling import CEM, MPPI
from steersman.dynamics.base import Prediction, Trajectories, Window
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement

GAIN, SIGMA = 0.5, 0.3


def problem(horizon: int = 10) -> ControlProblem:
    objective = Objective((Quadratic(name="z", on="z", weights=(1.0,)),))
    return ControlProblem(ActionSet((-1.0,), (1.0,)), objective, 1.0, horizon, ("y",), ("y",))


def now(n: int, y: float) -> Measurement:
    start = torch.full((n, 1), y, dtype=torch.float64)
    zero = torch.zeros(n, dtype=torch.int64)
    return Measurement(zero, start, torch.zeros(n, 1, 1, dtype=torch.float64), torch.zeros(n, 1, dtype=torch.float64))


def noisy() -> LinearDynamics:
    """``y+ = 0.9 y + 0.5 u + 0.3 w`` from data."""
    n, steps = 64, 40
    u = 2 * noise.uniform(noise.keys(1, n), steps, 1) - 1
    w = noise.normal(noise.keys(2, n), steps, 1)
    y = [torch.zeros(n, 1, dtype=torch.float64)]
    for j in range(steps):
        y.append(0.9 * y[-1] + GAIN * u[:, j] + SIGMA * w[:, j])
    out = torch.stack(y, dim=1)
    data = Trajectories(out, out.clone(), u, torch.ones(n, steps, dtype=torch.bool), 1.0)
    return LinearDynamics(context=1, choose=False).bind(problem()).fit(data)


def test_particles_are_weighed_as_the_measure_says() -> None:
    z = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    U, m = torch.zeros(1, 1, 1, dtype=torch.float64), now(1, 0.0)
    found = {
        risk: float(PlanCost(problem(), particles=4, risk=risk, tail=0.5)(Prediction(z, z), U, m))  # type: ignore[arg-type]
        for risk in ("mean", "cvar", "worst")
    }
    assert found == {"mean": 7.5, "cvar": 12.5, "worst": 16.0}


def test_particles_of_a_noisy_model_bring_the_expected_cost() -> None:
    """Of one step: ``(0.9 y + 0.5 u)^2 + 0.3^2``, and the worst of many is far above it."""
    model, m = noisy(), now(1, 1.0)
    h = model.init(Window(m.y[:, None], m.u_prev[:, None][:, :0], m))
    U = torch.full((1, 1, 1), -0.6, dtype=torch.float64)
    plain = float(PlanCost(problem()).through(model, h, U, m))
    mean = float(PlanCost(problem(), particles=20_000).through(model, h, U, m))
    worst = float(PlanCost(problem(), particles=20_000, risk="worst").through(model, h, U, m))
    assert plain == pytest.approx((0.9 - 0.3) ** 2, rel=0.1)
    assert mean - plain == pytest.approx(SIGMA**2, rel=0.06)
    assert worst > (0.6 + 3.5 * SIGMA) ** 2


@pytest.mark.parametrize("make", [MPPI, CEM])
def test_planners_avoid_a_gamble_only_where_the_worst_counts(make: type) -> None:
    """Two ways: a sure price of 0.3, or a gamble that costs 1 in one of eight particles and nothing in the others."""

    class Gamble(LinearDynamics):
        def predict(self, h, U, particles=1, **asks):  # type: ignore[no-untyped-def, override]
            sure = (U[:, :1, 0] > 0).to(U.dtype) * 0.3
            bad = (torch.arange(particles) == 0).to(U.dtype)
            z = torch.where(sure > 0, sure, bad).sqrt()[..., None, None].expand(-1, -1, U.shape[1], -1)
            return Prediction(z, z)

    model = Gamble(context=1, choose=False).bind(problem())
    model.load_state_dict(noisy().state_dict())
    chosen = {}
    for risk in ("mean", "worst"):
        law = make(horizon=1, samples=64, particles=8, risk=risk).bind(problem(2), model)
        law.reset(4, gen=torch.Generator().manual_seed(0))
        chosen[risk] = law.act(now(4, 1.0)).u
    assert bool((chosen["mean"] <= 0).all()) and bool((chosen["worst"] > 0).all())


@pytest.mark.parametrize("make", [MPPI, CEM, Adjoint])
def test_tails_out_of_range_are_refused(make: type) -> None:
    with pytest.raises(ValueError, match=r"tail must lie in \(0, 1\], got 0"):
        make(risk="cvar", tail=0.0)
    with pytest.raises(ValueError, match=r"risk='worst' compares draws of a model's noise; give it particles"):
        make(risk="worst", horizon=2).bind(problem(), noisy())
