"""Linear systems from and to python-control: against its own responses, poles and conversions."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

control = pytest.importorskip("control")

from steersman.controllers.registry import make_controller  # noqa: E402
from steersman.dynamics.collect import HeldLevels, collect  # noqa: E402
from steersman.dynamics.linear.exchange import to_control  # noqa: E402
from steersman.dynamics.linear.models import LinearDynamics  # noqa: E402
from steersman.dynamics.truth.operating_point import linearized  # noqa: E402
from steersman.envs import noise  # noqa: E402
from steersman.envs.checks import check_plant  # noqa: E402
from steersman.envs.classic.linear_system import LinearSystem  # noqa: E402
from steersman.envs.classic.pendulum import Pendulum  # noqa: E402
from steersman.envs.pde.linear import Wave  # noqa: E402
from steersman.envs.simulator import PlantSimulator  # noqa: E402
from steersman.experiments.cli import main  # noqa: E402

GYRE = control.ss([[0, 1.0, 0], [-2, -0.3, 0.5], [0, 0, -1.5]], [[0, 1], [1, 0], [0.5, 0.2]], [[1, 0, 0], [0, 1, 1]], 0)
"""Two actions, two outputs."""


def plant(system: Any, m: int = 1, **more: Any) -> LinearSystem:
    return LinearSystem(system, [-9.0] * m, [9.0] * m, **({"period": 0.25, "horizon": 20} | more))


def run(of: LinearSystem, start: Tensor, u: Tensor) -> Tensor:
    """Outputs ``[steps + 1, ny]`` under actions ``[steps, m]``."""
    k, x = torch.zeros(1, dtype=torch.int64), start[None]
    found = [of.measure(k, x, {})]
    for action in u:
        x = of.step(k, x, action[None], k, {})
        found.append(of.measure(k, x, {}))
    return torch.cat(found)


def actions(steps: int, m: int) -> Tensor:
    return torch.randn(steps, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------ in


@pytest.mark.parametrize(
    "system",
    [
        GYRE,
        control.sample_system(GYRE, 0.25, "zoh"),
        control.tf([1.0, 2.0], [1.0, 0.4, 3.0]),
        control.tf([1], [1, 0, 0]),
    ],
)
def test_it_answers_as_forced_response_does(system: Any) -> None:
    space = control.ss(system)
    of = plant(system, space.ninputs)
    u, start = actions(20, space.ninputs), torch.linspace(0.5, 1.0, space.nstates, dtype=torch.float64)
    sampled = space if space.dt else control.sample_system(space, 0.25, "zoh")
    right = control.forced_response(sampled, 0.25 * np.arange(21), np.vstack([u, np.zeros((1, len(u[0])))]).T, start)
    np.testing.assert_allclose(run(of, start, u), np.atleast_2d(right.outputs).T, rtol=1e-10, atol=1e-10)
    check_plant(of)
    assert of.measured == tuple(space.output_labels) and of.actions.names == tuple(space.input_labels)


def test_a_table_is_the_same_system() -> None:
    u, start = actions(10, 2), torch.ones(3, dtype=torch.float64)
    table = {name: np.asarray(getattr(GYRE, name)).tolist() for name in "ABC"}
    assert torch.equal(run(plant(table, 2), start, u), run(plant(GYRE, 2), start, u))
    of = {"numerator": [1.0], "denominator": [1.0, 0.5]}
    one, u = torch.ones(1, dtype=torch.float64), u[:, :1]
    assert torch.equal(run(plant(of), one, u), run(plant(control.tf([1], [1, 0.5])), one, u))
    own = run(plant(of | {"dt": 0.25}, period=None), one, u)
    assert own[1] == -0.5 * own[0] + u[0] and plant(of | {"dt": 0.25}, period=None).period == 0.25


def test_feedthrough_is_seen_just_before_the_next_action() -> None:
    """The output jumps with the action: what is measured is its limit from the left."""
    lead = control.tf([1.0, 2.0, 3.0], [1.0, 0.5, 2.0])
    space, u = control.ss(lead), actions(12, 1)
    of = plant(lead)
    found = run(of, torch.zeros(3, dtype=torch.float64), u)
    sampled = control.sample_system(control.ss(space.A, space.B, space.C, 0), 0.25, "zoh")
    right = control.forced_response(sampled, 0.25 * np.arange(13), np.append(u[:, 0], 0.0)).outputs
    np.testing.assert_allclose(found[1:, 0], right[1:] + float(space.D[0, 0]) * u[:, 0].numpy(), rtol=1e-10)
    check_plant(of)
    fine = np.linspace(0, 0.25, 2001)
    first = control.forced_response(space, fine, np.full(2001, float(u[0, 0]))).outputs[-1]
    assert float(found[1, 0]) == pytest.approx(first, rel=1e-6)


def test_costs_starts_and_gradients() -> None:
    of = plant(GYRE, 2, weights=[2.0, 0.5], effort=0.1, reference=[1.0, -1.0], start=[3.0, 0.0, 0.0], spread=0.5)
    simulator = PlantSimulator(of, 200)
    simulator.reset(simulator.scenarios(noise.keys(0, 200)))
    x = simulator.x
    assert isinstance(x, Tensor) and bool(((x - torch.tensor([3.0, 0.0, 0.0])).abs() <= 0.5).all())
    assert float(x[:, 0].min()) < 2.55 and float(x[:, 1].max()) > 0.45
    u = torch.tensor([[1.0, 2.0]], dtype=torch.float64).expand(200, 2)
    cost = 2 * (x[:, 0] - 1) ** 2 + 0.5 * (x[:, 1] + x[:, 2] + 1) ** 2 + 0.1 * 5
    torch.testing.assert_close(simulator.step(u).cost, cost)
    k, u1 = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(of.step(k, x[:1], u1, k, {})[0, 1], u1)
    np.testing.assert_allclose(slope[0], control.sample_system(GYRE, 0.25, "zoh").B[1], rtol=1e-12)


def test_lqr_finds_the_gain_of_dlqr() -> None:
    """Far from bounds and over a long horizon: the feedback is that of the algebraic Riccati equation."""
    discrete = control.sample_system(control.ss([[0, 1.0], [0.5, 0]], [[0], [1.0]], np.eye(2), 0), 0.1, "zoh")
    of = plant(discrete, period=None, weights=[1.0, 1.0], effort=0.1, horizon=400)
    gain, *_ = control.dlqr(discrete, np.eye(2), 0.1 * np.eye(1))
    controller = make_controller("lqr").bind(of.problem, linearized(of))
    controller.reset(3)
    simulator = PlantSimulator(of, 3)
    simulator.reset(simulator.scenarios(noise.keys(0, 3)))
    x = simulator.x
    assert isinstance(x, Tensor)
    np.testing.assert_allclose(controller.act(simulator.measure()).u, -(x.numpy() @ gain.T), rtol=1e-6)


@pytest.mark.parametrize(
    ("system", "more", "message"),
    [
        (GYRE, {"period": None}, "period: the system does not say"),
        (GYRE, {"period": -1.0}, r"period must be positive and finite, got -1\.0"),
        (control.sample_system(GYRE, 0.1), {}, r"period is 0\.25, but the system is discrete with 0\.1"),
        (control.StateSpace([[1.0]], [[1.0]], [[1.0]], [[0.0]], None), {"m": 1}, "its dt is None"),
        (control.tf([1, 2], [1, 1], 0.25), {"m": 1}, "D must be zero where the system is discrete"),
        ({"A": [[1.0]], "B": [[1.0]]}, {"m": 1}, "system: a table holds A, B, C .*; got A, B"),
        (
            {"A": [[1.0]], "B": [[1.0]], "C": [[1.0, 2.0]]},
            {"m": 1},
            r"system: C must have shape \(1, 1\).*got \(1, 2\)",
        ),
        ({"A": [[math.nan]], "B": [[1.0]], "C": [[1.0]]}, {"m": 1}, "system: A must be a matrix of finite numbers"),
        ({"A": [[1e6]], "B": [[1.0]], "C": [[1.0]]}, {"m": 1}, "grows beyond all numbers within a period"),
        (3.0, {}, "give a StateSpace, a TransferFunction or a table, got float"),
        (GYRE, {"weights": [1.0]}, r"weights must have 2 entries, got \[1\.0\]"),
        (GYRE, {"m": 1}, r"lower must have 2 entries, got \[-9\.0\]"),
        (GYRE, {"horizon": 0}, "horizon must be at least 1"),
        (GYRE, {"spread": -1.0}, "spread must be at least 0"),
    ],
)
def test_what_is_no_system_or_no_task_is_said(system: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plant(system, **({"m": 2} | more))


# ------------------------------------------------------------------ out


def test_poles_are_the_eigenvalues_and_names_are_kept() -> None:
    found, model = to_control(Pendulum(), "performed"), linearized(Pendulum())
    np.testing.assert_allclose(np.sort(found.poles()), np.sort(np.linalg.eigvals(model.A_)), rtol=1e-12)
    assert (found.input_labels, found.output_labels, found.dt) == (["torque"], ["theta", "speed"], 0.05)
    wave = to_control(Wave(), at="zero")
    assert wave.nstates == 200 and wave.output_labels[1] == "u(0_11)" and wave.ninputs == 6
    right = np.linalg.eigvals(linearized(Wave(), at="zero").A_.numpy())
    np.testing.assert_allclose(np.sort(np.abs(wave.poles())), np.sort(np.abs(right)), rtol=1e-9)


@pytest.mark.parametrize("system", [GYRE, control.tf([1.0, 2.0, 3.0], [1.0, 0.4, 3.0])])
def test_there_and_back(system: Any) -> None:
    of = plant(system, control.ss(system).ninputs)
    once = to_control(of)
    twice = to_control(plant(once, once.ninputs, period=None))
    for name in "ABC":
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-12, atol=1e-14)
    assert (twice.dt, twice.input_labels, twice.output_labels) == (0.25, once.input_labels, once.output_labels)
    inside = np.exp(0.25 * control.ss(system).poles())
    assert all(np.abs(once.poles() - pole).min() < 1e-9 for pole in inside)


def test_a_fitted_model_has_the_poles_of_what_it_was_fitted_to() -> None:
    of = plant(control.tf([1.0, 0.5], [1.0, 0.4, 3.0]), spread=1.0)
    simulator = PlantSimulator(of, 8)
    model = LinearDynamics(context=2, choose=False, ridge=0.0).bind(of.problem)
    with pytest.raises(RuntimeError):
        to_control(model)
    found = to_control(model.fit(collect(simulator, HeldLevels(), episodes=8, seed=0)))
    wanted = np.exp(0.25 * np.roots([1.0, 0.4, 3.0]))
    assert all(np.abs(found.poles() - pole).min() < 1e-6 for pole in wanted)
    gain = control.sample_system(control.ss(control.tf([1.0, 0.5], [1.0, 0.4, 3.0])), 0.25, "zoh")
    z = np.exp(0.7j)
    assert complex(found(z)) == pytest.approx(complex(gain(z)), rel=1e-5)


# ------------------------------------------------------------------ the command


def test_the_command_prints_poles_and_margins_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {
        "system": {"numerator": [2.0], "denominator": [1.0, 0.5, 1.0, 0.0]}, "lower": [-1.0], "upper": [1.0], "period": 0.1
    }  # fmt: skip
    name = "steersman.envs.classic.linear_system:LinearSystem"
    assert main(["linearise", name, "--settings", json.dumps(settings), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "linear.json").read_text(), parse_constant=pytest.fail)
    sampled = control.sample_system(control.ss(control.tf([2.0], [1.0, 0.5, 1.0, 0.0])), 0.1, "zoh")
    omega = np.linspace(0.5, 3.0, 200_001)
    h = sampled(np.exp(0.1j * omega))
    phase, (margin,) = np.unwrap(np.angle(h)), found["margins"]
    gain = 1 / abs(h[np.abs(phase % (2 * np.pi) - np.pi).argmin()])
    lag = np.rad2deg((np.angle(h[np.abs(np.abs(h) - 1).argmin()]) + np.pi + np.pi) % (2 * np.pi) - np.pi)
    assert gain < 1 and lag < 0  # the loop would be unstable
    assert (margin["gain"], margin["phase"]) == pytest.approx((gain, lag), rel=1e-2)
    assert f"{margin['gain']:.4g}" in said and f"{margin['phase']:.4g}" in said
    poles = [complex(*pole) for pole in found["poles"]]
    assert all(min(abs(np.exp(0.1 * pole) - z) for z in poles) < 1e-9 for pole in np.roots([1.0, 0.5, 1.0, 0.0]))
    assert abs(poles[0]) == pytest.approx(1.0) and (tmp_path / "bode.png").stat().st_size > 5_000
    assert re.search(r"j +[\d.]+ +1 +0\.25", said)  # frequency and damping of s^2 + 0.5 s + 1


def test_what_cannot_be_linearised_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["linearise", "Pendulum-v1"]) == 2
    assert "is a simulator without a plant behind it" in " ".join(capsys.readouterr().err.split())
