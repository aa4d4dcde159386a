"""LQR and LQG against dynamic programming and dense least squares, with references, previews and rates of change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_test_plants import Array, Case, LinearPlant, case, measurement, optimum, plan_cost, scalar

from steersman.controllers.classical.lqr import LQG, LQR
from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import noise
from steersman.envs.objective import L1, Linear, Objective, Opaque, Quadratic
from steersman.envs.simulator import PlantSimulator


def acted(plant: LinearPlant, x: Array, u_prev: Array, r: Array, horizon: int | None, k: int = 0) -> Array:
    """Actions ``[n, m]`` of LQR at states ``x``, the references ``r [1 + preview, nz]`` as shown."""
    controller = LQR(horizon).bind(plant.problem, plant.model())
    controller.reset(len(np.atleast_2d(x)))
    return controller.act(measurement(x, u_prev, r, k)).u.numpy()


def dynamic_programming(c: Case, r: Array, steps: int) -> tuple[Array, Array]:
    """Gain and offset ``u = -K (x, u_prev) - k`` of the first of many steps, by the plain affine recursion.

    The state is ``(x, u_prev)`` and the value ``v'P v + 2 p'v``; r is held.
    """
    ns, m = c.B.shape
    S, zero = np.diag(c.S), np.zeros((m, m))
    A = np.block([[c.A, np.zeros((ns, m))], [np.zeros((m, ns)), zero]])
    B, offset = np.vstack([c.B, np.eye(m)]), np.concatenate([c.c, np.zeros(m)])
    weight = np.diag(c.E + c.Q)
    Qx = c.Cz.T @ weight @ c.Cz
    qx = c.Cz.T @ (weight @ c.dz - c.E * r + c.q)
    Qv, qv = np.block([[Qx, np.zeros((ns, m))], [np.zeros((m, ns)), S]]), np.concatenate([qx, np.zeros(m)])
    N, R = np.vstack([np.zeros((ns, m)), -S]), np.diag(c.R) + S
    P, p = np.zeros_like(Qv), np.zeros(ns + m)
    P[:ns, :ns], p[:ns] = Qx, qx
    for _ in range(steps):
        H = R + B.T @ P @ B
        K = np.linalg.solve(H, B.T @ P @ A + N.T)
        k = np.linalg.solve(H, B.T @ (P @ offset + p) + c.g)
        p = qv + (A - B @ K).T @ (P @ offset + p) - K.T @ c.g
        P = Qv + A.T @ P @ A - K.T @ H @ K
        P = (P + P.T) / 2
    return K, k


def randomly(seed: int, m: int, nz: int, steps: int) -> tuple[Case, Array, Array, Array]:
    """A plant with all kinds of terms, a state, the action before and references ``r_k .. r_{k+steps}``."""
    rng = np.random.default_rng(seed + 1)
    c = case(seed, m=m, nz=nz, rate=True)
    return c, rng.normal(size=3), rng.normal(size=m), rng.normal(size=(steps + 1, nz))


sizes = given(seed=st.integers(0, 10_000), horizon=st.integers(1, 7), nz=st.integers(1, 3), m=st.integers(1, 2))


@sizes
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_receding_horizon_is_the_dense_optimum_with_preview(seed: int, horizon: int, nz: int, m: int) -> None:
    c, x, u_prev, r = randomly(seed, m, nz, horizon)
    for plan in (c, replace(c, S=np.zeros(m))):
        best, _ = optimum(plan, x, u_prev, r[1:])
        found = acted(LinearPlant(plan), x, u_prev, r, horizon)
        np.testing.assert_allclose(found[0], best[0], atol=1e-8)


@sizes
@settings(max_examples=25, deadline=None, derandomize=True)
def test_near_the_end_of_an_episode_a_plan_ends_with_it(seed: int, horizon: int, nz: int, m: int) -> None:
    """The steps that are left are planned, and the terminal terms price the last outputs in place of the stage's."""
    c, x, u_prev, r = randomly(seed, m, nz, horizon)
    end = (3 * c.Q, 2 * c.E, -c.q)
    linear = Linear(name="q", on="z", weights=tuple(2 * end[2]))
    terminal = Quadratic(name="e", on="e", weights=tuple(end[0])), Quadratic(name="z", on="z", weights=tuple(end[1]))
    plant = LinearPlant(c, horizon=20, terminal=(*terminal, linear))
    for left in range(1, horizon + 3):
        steps = min(left, horizon)
        want, _ = optimum(c, x, u_prev, r[1 : steps + 1], end=end if left <= horizon else None)
        np.testing.assert_allclose(acted(plant, x, u_prev, r, horizon, k=20 - left)[0], want[0], atol=1e-8)
    # Rows may stand at different steps: each plans its own.
    controller = LQR(horizon).bind(plant.problem, plant.model())
    controller.reset(3)
    rows = measurement(np.stack([x, x, x]), u_prev, r)
    found = controller.act(replace(rows, k=torch.tensor([19, 3, 25]))).u.numpy()
    for row, k in enumerate((19, 3, 19)):
        np.testing.assert_allclose(found[row], acted(plant, x, u_prev, r, horizon, k=k)[0], atol=1e-12)


def test_a_horizon_over_the_whole_episode_costs_the_least_that_is_possible() -> None:
    c, steps = case(11, rate=True), 12
    r = np.random.default_rng(4).normal(size=(steps + 1, 2))
    terminal = (Quadratic(name="end", on="e", weights=(5.0, 7.0)),)
    plant = LinearPlant(c, horizon=steps, reference=r, terminal=terminal)
    controller = LQR(2 * steps).bind(plant.problem, plant.model())
    simulator = PlantSimulator(plant, 3)
    simulator.reset(simulator.scenarios(noise.keys(5, 3)))
    controller.reset(3)
    x0, cost = simulator.measure().y.numpy(), np.zeros(3)
    for _ in range(steps):
        cost += simulator.step(controller.act(simulator.measure(2 * steps)).u).cost.numpy()
    z0 = x0 @ c.Cz.T + c.dz
    first = (z0 - r[0]) ** 2 @ c.E + z0**2 @ c.Q + 2 * z0 @ c.q
    end = np.array([5.0, 7.0]), np.zeros(2), np.zeros(2)
    want = [optimum(c, x, np.zeros(2), r[1:], end=end)[1] for x in x0]
    np.testing.assert_allclose(cost - first, want, rtol=1e-9)


@given(seed=st.integers(0, 10_000), rate=st.booleans())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_infinite_horizon_is_the_limit_of_dynamic_programming(seed: int, rate: bool) -> None:
    c = case(seed, rate=rate)
    rng = np.random.default_rng(seed + 1)
    r, x, u_prev = rng.normal(size=2), rng.normal(size=(4, 3)), rng.normal(size=2)
    K, k = dynamic_programming(c, r, 3000)
    want = -np.hstack([x, np.tile(u_prev, (4, 1))]) @ K.T - k
    found = acted(LinearPlant(c), x, u_prev, r[None], None)
    np.testing.assert_allclose(found, want, atol=1e-6 * (1 + np.abs(want).max()))


def test_one_step_ahead_by_hand() -> None:
    """``min (x + u - r)^2 + effort u^2`` is at ``u = (r - x) / (1 + effort)``: towards the reference that comes next."""
    plant = LinearPlant(scalar(effort=3.0))
    found = acted(plant, np.array([[1.0], [-2.0]]), np.zeros(1), np.array([[50.0], [5.0], [-70.0]]), 1)
    np.testing.assert_allclose(found[:, 0], [(5 - 1) / 4, (5 + 2) / 4], atol=1e-12)


def test_each_reference_ahead_moves_the_action_as_the_dense_optimum_says() -> None:
    c, horizon = case(5), 6
    plant, x, u_prev = LinearPlant(c), np.zeros(3), np.zeros(2)
    base = acted(plant, x, u_prev, np.zeros((horizon + 1, 2)), horizon)[0]
    seen = []
    for j in range(1, horizon + 1):
        r = np.zeros((horizon + 1, 2))
        r[j, 0] = 1.0
        moved = acted(plant, x, u_prev, r, horizon)[0] - base
        want = optimum(c, x, u_prev, r[1:])[0][0] - optimum(c, x, u_prev, 0 * r[1:])[0][0]
        np.testing.assert_allclose(moved, want, atol=1e-9)
        seen.append(np.abs(moved).max())
    assert min(seen) > 1e-6, "every reference within the horizon counts"
    now = np.zeros((horizon + 1, 2))
    now[0] = 9.0  # the cost of the present output cannot be changed any more
    np.testing.assert_allclose(acted(plant, x, u_prev, now, horizon)[0], base, atol=1e-12)


def test_without_a_preview_the_present_reference_is_held() -> None:
    c, r = case(6), np.array([[0.7, -0.4]])
    plant, x = LinearPlant(c), np.array([0.2, 0.1, -0.3])
    short = acted(plant, x, np.zeros(2), r, 8)
    long = acted(plant, x, np.zeros(2), np.tile(r, (9, 1)), 8)
    np.testing.assert_allclose(short, long, atol=1e-12)


def response(plant: LinearPlant, preview: int, steps: int) -> float:
    """Cost of LQR on a long horizon that sees ``preview`` references ahead, from rest, ``z_k`` counted from k = 1."""
    controller = LQR(30).bind(plant.problem, plant.model())
    simulator = PlantSimulator(plant, 1)
    simulator.reset(
        replace(simulator.scenarios(noise.keys(0, 1)), x0=torch.zeros(1, len(plant.A), dtype=torch.float64))
    )
    controller.reset(1)
    return sum(float(simulator.step(controller.act(simulator.measure(preview)).u).cost) for _ in range(steps))


def test_a_preview_of_h_steps_is_worth_what_theory_says() -> None:
    """A step of the reference that is known h steps ahead cannot be answered before, and is answered best from then on.

    The least cost is that of a least-squares problem whose actions are zero until then; the regulator attains it, and
    each further step of preview is worth less than the one before, up to a limit.
    """
    c, at, steps = scalar(a=0.95, b=0.5, weight=1.0, effort=0.5), 12, 36
    previews = range(0, 9, 2)
    reference = np.zeros((steps + 31, 1))
    reference[at:] = 1.0
    plant = LinearPlant(c, horizon=steps + 31, reference=reference)
    nil, want = np.zeros(1), []
    for preview in previews:
        # Planned beyond what is run here. z_0 costs nothing.
        U, _ = optimum(c, nil, nil, reference[1:], fixed=at - preview)
        last = float(c.R @ U[steps - 1] ** 2)  # the simulator counts an action before its output
        want.append(plan_cost(c, nil, nil, reference[1:steps], U[: steps - 1]) + last)
    found = [response(plant, preview, steps) for preview in previews]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    gains = -np.diff(found)
    assert (gains > 0).all() and (np.diff(gains) < 0).all()
    assert found[-1] < 0.6 * found[0]


def test_the_closed_loop_costs_what_the_riccati_equation_says() -> None:
    """``x'P x`` less the first stage, P by 3,000 steps of the plain recursion; and no other gain is cheaper."""
    one, nil = np.ones(2), np.zeros(2)
    c = case(8)
    c = Case(c.A, c.B, 0 * c.c, c.Cz, 0 * c.dz, one, nil, nil, c.R, 0 * c.g, 0 * c.S)
    plant = LinearPlant(c, horizon=150)
    simulator = PlantSimulator(plant, 6)
    scenarios = simulator.scenarios(noise.keys(1, 6))
    P = Q = c.Cz.T @ c.Cz
    for _ in range(3000):
        P = Q + c.A.T @ P @ c.A - c.A.T @ P @ c.B @ np.linalg.solve(np.diag(c.R) + c.B.T @ P @ c.B, c.B.T @ P @ c.A)
    x0 = scenarios.x0.numpy()  # type: ignore[union-attr]
    want = np.einsum("ni,ij,nj->n", x0, P, x0)

    def cost(scale: float) -> Array:
        controller = LQR().bind(plant.problem, plant.model())
        controller.reset(6)
        simulator.reset(scenarios)
        total = torch.zeros(6, dtype=torch.float64)
        for _ in range(150):
            total += simulator.step(scale * controller.act(simulator.measure()).u).cost
        return total.numpy()

    np.testing.assert_allclose(cost(1.0), want, rtol=1e-6)
    assert (cost(0.95) > want).all() and (cost(1.05) > want).all()


def drifting(E: float = 1.0) -> tuple[Case, Case]:
    """A speed that follows a reference; and the same with the position, which costs nothing, as a further state."""
    speed = scalar(a=0.9, effort=1.0, weight=E)
    A = np.array([[1.0, 1.0], [0.0, 0.9]])
    both = replace(speed, A=A, B=np.array([[0.0], [1.0]]), c=np.zeros(2), Cz=np.array([[0.0, 1.0]]))
    return speed, both


def test_a_quantity_that_costs_nothing_does_not_act_through_the_gain() -> None:
    speed, both = drifting()
    for position in (0.0, 7.0):
        found = acted(LinearPlant(both), np.array([position, 0.4]), np.zeros(1), np.zeros((1, 1)), None)
        want = acted(LinearPlant(speed), np.array([0.4]), np.zeros(1), np.zeros((1, 1)), None)
        np.testing.assert_allclose(found, want, atol=1e-9)


def test_a_conserved_quantity_leaves_the_tracking_alone() -> None:
    speed, both = drifting()
    found = acted(LinearPlant(both), np.array([0.0, 0.4]), np.zeros(1), np.ones((1, 1)), None)
    want = acted(LinearPlant(speed), np.array([0.4]), np.zeros(1), np.ones((1, 1)), None)
    np.testing.assert_allclose(found, want, atol=1e-9)


def mixed(c: Case, A: Array, B: Array, seed: int) -> tuple[Case, Array]:
    """A case with further states ``x2+ = .. x + A x2 + B u`` that cost nothing, in coordinates ``T (x, x2)``; and T."""
    n, ns = len(c.A), len(c.A) + len(A)
    rng = np.random.default_rng(seed)
    T = np.eye(ns) + 0.3 * rng.normal(size=(ns, ns))
    whole, port, offset = np.zeros((ns, ns)), np.vstack([c.B, B]), np.concatenate([c.c, np.zeros(len(A))])
    whole[:n, :n], whole[n:, n:] = c.A, A
    whole[n:, :n] = rng.normal(size=(len(A), n))
    inverse = np.linalg.inv(T)
    read_out = np.hstack([c.Cz, np.zeros((len(c.Cz), len(A)))]) @ inverse
    return replace(c, A=T @ whole @ inverse, B=T @ port, c=T @ offset, Cz=read_out), T


ANGLE = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
COSTLESS = {
    "a sum": np.eye(1), "two sums": np.eye(2), "a sum of a sum": np.array([[1.0, 0.5], [0.0, 1.0]]),
    "an alternation": -np.eye(1), "a rotation": ANGLE,
}  # fmt: skip


@pytest.mark.parametrize("kind", COSTLESS)
@given(seed=st.integers(0, 10_000), rate=st.booleans())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_modes_on_the_unit_circle_that_cost_nothing_change_nothing(kind: str, seed: int, rate: bool) -> None:
    c, A = case(seed, rate=rate), COSTLESS[kind]
    rng = np.random.default_rng(seed)
    whole, T = mixed(c, A, rng.normal(size=(len(A), 2)), seed)
    r, u_prev, x = rng.normal(size=(1, 2)), rng.normal(size=2), rng.normal(size=(4, 3 + len(A)))
    want = acted(LinearPlant(c), x[:, :3], u_prev, r, None)
    found = acted(LinearPlant(whole), x @ T.T, u_prev, r, None)
    np.testing.assert_allclose(found, want, atol=1e-7 * (1 + np.abs(want).max()))


def test_a_constant_that_costs_but_cannot_be_changed_is_compensated() -> None:
    """A disturbance that stays for ever costs without end, whatever is done; the best actions are still finite."""
    c = scalar(a=0.9, effort=0.5)
    both = replace(
        c, A=np.array([[0.9, 1.0], [0.0, 1.0]]), B=np.array([[1.0], [0.0]]), c=np.array([0.0, 0.0]),
        Cz=np.array([[1.0, 0.3]]), dz=np.array([0.7]),
    )  # fmt: skip
    K, k = dynamic_programming(both, np.array([0.4]), 500)
    x = np.array([[0.2, -1.0], [3.0, 2.0]])
    found = acted(LinearPlant(both), x, np.zeros(1), np.array([[0.4]]), None)
    np.testing.assert_allclose(found, -np.hstack([x, np.zeros((2, 1))]) @ K.T - k, atol=1e-9)


def test_what_has_no_optimum_over_an_infinite_horizon_is_refused() -> None:
    _, both = drifting()

    def bound(changed: Case, horizon: int | None = None) -> LQR:
        plant = LinearPlant(changed)
        return LQR(horizon).bind(plant.problem, plant.model())

    paid = replace(both, Cz=np.eye(2), dz=np.zeros(2), E=np.array([0.0, 1.0]), Q=np.zeros(2), q=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="driving a mode on and on"):
        bound(paid)
    bound(paid, 5)
    grown = np.array([[1.01, 0.0], [0.0, 0.9]])
    with pytest.raises(ValueError, match=r"grows 1\.01-fold in each step and costs nothing"):
        bound(replace(both, A=grown, B=np.ones((2, 1))))
    hidden = replace(both, A=grown, Cz=np.array([[1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"grows 1\.01-fold in each step and cannot be controlled"):
        bound(hidden)
    bound(hidden, 5)


def test_an_effort_replaces_the_objective_by_outputs_to_zero() -> None:
    c = case(9)
    plant = LinearPlant(c)
    x = np.random.default_rng(0).normal(size=(5, 3))
    own = LQR(effort=0.3).bind(plant.problem, plant.model())
    own.reset(5)
    same = replace(
        c, Cz=np.eye(3), dz=np.zeros(3), E=np.zeros(3), Q=np.ones(3), q=np.zeros(3), R=np.full(2, 0.3), g=np.zeros(2)
    )
    r = np.full((1, 2), 4.0)  # references of other outputs mean nothing here
    want = acted(LinearPlant(same), x, np.zeros(2), np.zeros((1, 3)), None)
    np.testing.assert_allclose(own.act(measurement(x, np.zeros(2), r)).u.numpy(), want, atol=1e-9)


def test_lqg_with_exact_sensors_acts_as_lqr_and_forgets_a_wrong_start() -> None:
    c = case(10)
    plant = LinearPlant(c, horizon=60)
    model = plant.model()
    simulator = PlantSimulator(plant, 4)
    filtered = LQG(process_noise=1e-3, measurement_noise=1e-9, start_noise=1e3).bind(plant.problem, model)
    direct = LQR().bind(plant.problem, model)
    simulator.reset(simulator.scenarios(noise.keys(2, 4)))
    filtered.reset(4)
    direct.reset(4)
    for _ in range(10):
        m = simulator.measure()
        torch.testing.assert_close(filtered.act(m).u, direct.act(m).u, atol=1e-6, rtol=1e-6)
        simulator.step(direct.act(m).u)
    mask = torch.tensor([False, True, False, False])
    simulator.reset(simulator.scenarios(noise.keys(3, 4)), mask)
    filtered.reset(4, mask)
    m = simulator.measure()
    torch.testing.assert_close(filtered.act(m).u, direct.act(m).u, atol=1e-6, rtol=1e-6)


def test_what_is_not_linear_quadratic_is_named() -> None:
    plant = LinearPlant(case(1))
    model = plant.model()

    def refused(terms: Objective, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LQR().bind(replace(plant.problem, objective=terms), model)

    priced = Quadratic(name="u", on="u", weights=(1.0, 1.0))
    refused(Objective((L1(name="abs", on="z", weights=(1.0, 1.0)), priced)), "'abs' is L1")
    refused(Objective((Opaque(name="f", on="z", function=lambda s: s[..., 0]), priced)), "'f' is Opaque")
    refused(Objective((Quadratic(name="z", on="z", weights=(1.0, 1.0)),)), "quadratic cost of every action")
    refused(Objective((Quadratic(name="u", on="u", weights=(1.0, 0.0)),)), "quadratic cost of every action")
    ending = Objective((priced,), (L1(name="last", on="z", weights=(1.0, 1.0)),))
    LQR().bind(replace(plant.problem, objective=ending), model)
    with pytest.raises(ValueError, match="'last' is L1"):
        LQR(3).bind(replace(plant.problem, objective=ending), model)
    with pytest.raises(ValueError, match="linear model, got NoneType"):
        LQR().bind(plant.problem)
    unstable = replace(case(1), A=2 * np.eye(3), B=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="cannot be controlled"):
        LQR().bind(LinearPlant(unstable).problem, LinearPlant(unstable).model())
    with pytest.raises(RuntimeError, match="not fitted"):
        LQR().bind(plant.problem, LinearDynamics())
