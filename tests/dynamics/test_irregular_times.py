"""Times that are irregular, outputs that are missing: what is recorded, who can learn from it, and who refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from dynamics_test_plants import Oscillator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories, Window
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.continuous.neural_ode import NeuralODE, NeuralODESettings
from steersman.dynamics.kinetic.reactions import Process, ReactionDynamics, ReactionSettings
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.score import score
from steersman.dynamics.sensing import Sensing
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.envs import noise
from steersman.envs.simulator import Measurement, PlantSimulator

KINETICS = (Process(("q",), {"v": -1.0}), Process(("v",), {"q": 1.0}), Process(("u0",), {"v": 1.0}))
FITTED: dict[str, Callable[[], Dynamics]] = {
    "linear": lambda: LinearDynamics(2),
    "neural": lambda: NeuralDynamics(NeuralSettings(context=2, hidden=(6,), members=2, steps=20, batch=16)),
    "neural-ode": lambda: NeuralODE(NeuralODESettings(context=1, hidden=(6,), steps=20, batch=16, rollout=4)),
    "neural-ode of two": lambda: NeuralODE(NeuralODESettings(context=2, hidden=(6,), steps=20, batch=16, rollout=4)),
    "sparse": lambda: SparseNeuralDynamics(
        SparseSettings(relus=3, hidden=(6,), dense_steps=15, rounds=1, round_steps=10, tune_steps=15, batch=16)
    ),
    "reactions": lambda: ReactionDynamics(ReactionSettings(processes=KINETICS, steps=3, batch=16)),
}
CONTINUOUS = ("neural-ode", "reactions")


def recorded(sensing: Sensing, episodes: int = 12, seed: int = 0) -> Trajectories:
    data = collect(PlantSimulator(Oscillator(), episodes), HeldLevels(), episodes=episodes, seed=seed, sensing=sensing)
    return replace(data, y=data.y + 3.0)  # kinetics wants positive outputs


# ------------------------------------------------------------------ data


def test_data_without_times_have_one_entry_each_period() -> None:
    data = recorded(Sensing(), 2)
    assert data.uniform and data.whole and bool((data.dt == data.period).all())
    torch.testing.assert_close(data.t[:, 10], torch.full((2,), 1.0, dtype=torch.float64))
    old = {name: value for name, value in data.tensors().items() if name not in ("t", "seen")}
    assert torch.equal(Trajectories.of(old).t, data.t) and Trajectories.of(old).whole
    with pytest.raises(ValueError, match=r"times must grow: entry 4 of episode 0 is at 0\.1"):
        replace(data, t=torch.where(torch.arange(61) == 4, 0.1, data.t))


def test_parts_of_data_keep_their_times_and_what_was_seen() -> None:
    data = recorded(Sensing(irregular=3, missing=0.3), 4)
    both = Trajectories.join([data.index(slice(0, 2)), data.padded(data.u.shape[1] + 5).index(slice(2, 4))])
    length = data.u.shape[1]
    assert torch.equal(both.t[:, : length + 1], data.t) and torch.equal(both.seen[:, : length + 1], data.seen)
    assert not bool(both.valid[:, length:].any()) and both.steps == data.steps
    some = data.entries(2, 7)
    assert some.u.shape[1] == 5 and torch.equal(some.t, data.t[:, 2:8]) and torch.equal(some.dt, data.dt[:, 2:7])
    assert torch.equal(Trajectories.of(some.tensors()).seen, some.seen)


@pytest.mark.parametrize("irregular", [2, 5])
def test_irregular_entries_are_the_plants_own_under_held_actions(irregular: int) -> None:
    plant, data = Oscillator(), recorded(Sensing(irregular=irregular))
    periods = (data.dt / data.period).round().long()
    assert set(periods[data.valid].tolist()) == set(range(1, irregular + 1))
    rows = data.valid.nonzero()[::7]
    for episode, j in rows.tolist():
        y, u = data.y[episode, j] - 3.0, data.u[episode, j][None]
        x = {"q": y[1][None], "v": y[2][None]}
        for _ in range(int(periods[episode, j])):
            x = plant.step(torch.zeros(1), x, u, noise.keys(0, 1), plant.params(noise.keys(0, 1)))
        after = data.y[episode, j + 1] - 3.0
        torch.testing.assert_close(torch.stack([x["q"][0], x["v"][0]]), after[1:], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after[0], data.t[episode, j + 1], rtol=1e-6, atol=1e-6)  # the plant's own clock
    assert data.steps == int(periods[data.valid].sum()) == 60 * len(data)  # every plant step is counted
    late = Sensing(irregular=irregular).recorded(noise.keys(0, 2000), 60)
    assert bool(late[:, [0, 60]].all()) and abs(float(late[:, 20:40].double().mean()) - 2 / (irregular + 1)) < 0.03


def test_what_is_missing_repeats_what_was_seen_and_what_is_late_is_old() -> None:
    whole, data = recorded(Sensing()), recorded(Sensing(missing=0.4))
    assert bool(data.seen[:, 0].all()) and abs(float(data.seen[:, 1:].double().mean()) - 0.6) < 0.03
    assert torch.equal(data.y[data.seen], whole.y[data.seen])
    again = ~data.seen[:, 1:]
    assert torch.equal(data.y[:, 1:][again], data.y[:, :-1][again])
    assert torch.equal(data.complete, data.seen[:, :-1].all(-1) & data.seen[:, 1:].all(-1))
    late = recorded(Sensing(delay=3))
    assert torch.equal(late.y[:, 3:], whole.y[:, :-3]) and torch.equal(late.z, whole.z)
    assert late.seen.all(dim=-1)[0].tolist() == [True, False, False, *[True] * 58]
    wrong = recorded(Sensing(jitter=0.2))
    error = (wrong.t - whole.t) / whole.period
    assert 0.15 < float(error.abs().max()) <= 0.2 and not wrong.uniform and wrong.steps == whole.steps


@settings(max_examples=40, deadline=None)
@given(st.integers(-2, 3), st.integers(-2, 2), st.floats(-1, 2), st.floats(-1, 2))
def test_sensing_takes_what_makes_sense(irregular: int, delay: int, missing: float, jitter: float) -> None:
    if irregular >= 1 and delay >= 0 and 0 <= missing < 1 and 0 <= jitter <= 0.25:
        Sensing(irregular=irregular, delay=delay, missing=missing, jitter=jitter)
    else:
        with pytest.raises(ValueError, match=r"must (be|lie)"):
            Sensing(irregular=irregular, delay=delay, missing=missing, jitter=jitter)


# ------------------------------------------------------------------ models


@pytest.mark.parametrize("name", FITTED)
def test_models_learn_from_irregular_times_or_refuse_by_name(name: str) -> None:
    data = recorded(Sensing(irregular=4))
    model = FITTED[name]().bind(Oscillator().problem)
    if name in CONTINUOUS:
        assert not model.uniform_only and model.fit(data) is model
        return
    assert model.uniform_only
    with pytest.raises(ValueError, match=rf"{type(model).__name__} knows steps of one control period \(0.1\) only"):
        model.fit(data)


@pytest.mark.parametrize("name", FITTED)
def test_outputs_that_were_not_seen_teach_nothing(name: str) -> None:
    """Numbers that stand where nothing was seen are exchanged: the fit does not notice."""
    data = recorded(Sensing(missing=0.15), 16)

    def fitted(by: float) -> dict[str, Tensor]:
        entire = data.seen.all(dim=-1, keepdim=True)
        other = replace(data, y=torch.where(data.seen, data.y, by), z=torch.where(entire, data.z, by))
        return FITTED[name]().bind(Oscillator().problem).fit(other).state_dict()

    want, found = fitted(0.5), fitted(40.0)
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=f"{key} learned from what was not seen")


def test_an_ode_fitted_to_irregular_times_knows_every_step() -> None:
    settings = NeuralODESettings(context=1, hidden=(8,), steps=120, rollout=3, substeps=1, rate=1e-2)
    model = NeuralODE(settings).bind(Oscillator().problem).fit(recorded(Sensing(irregular=3), 32))
    with torch.no_grad():
        for test in (recorded(Sensing(irregular=3), 24, seed=1), recorded(Sensing(), 24, seed=1)):
            assert float(score(model, test, 10).relative_z.max()) < 0.08
        data = recorded(Sensing(), 4, seed=2)
        m = Measurement(torch.zeros(4, dtype=torch.int64), data.y[:, 0], data.z[:, :1], data.u[:, 0])
        h, u = model.init(Window(data.y[:, :1], data.u[:, :0], m)), data.u[:, 0]
        twice = model.step(model.step(h, u), u)
        once = model.step(h, u, torch.full((4,), 0.2, dtype=torch.float64))
        torch.testing.assert_close(model.output(once)[0], model.output(twice)[0], rtol=1e-4, atol=1e-4)


def test_the_kinetics_of_irregular_data_are_those_of_regular_ones() -> None:
    """A first-order decay with inflow, of which the solution is known: ``y+ = e^(-a dt) y + (1 - e^(-a dt)) b u / a``."""
    gen = torch.Generator().manual_seed(0)
    a, b, n, steps = 0.7, 1.3, 12, 20
    dt = 0.1 + 0.9 * torch.rand(n, steps, generator=gen, dtype=torch.float64)
    u = torch.rand(n, steps, 1, generator=gen, dtype=torch.float64)
    y = [0.5 + torch.rand(n, generator=gen, dtype=torch.float64)]
    for j in range(steps):
        stays = torch.exp(-a * dt[:, j])
        y.append(stays * y[-1] + (1 - stays) * b * u[:, j, 0] / a)
    out = torch.stack(y, dim=1)[..., None]
    t = torch.cat([torch.zeros(n, 1, dtype=torch.float64), dt.cumsum(dim=1)], dim=1)
    data = Trajectories(out, out.clone(), u, torch.ones(n, steps, dtype=torch.bool), 0.5, t)
    problem = replace(
        Oscillator().problem, measured=("y",), performed=("y",), exogenous=(), period=0.5,
        actions=replace(Oscillator().problem.actions, names=("inflow",)),
    )  # fmt: skip
    processes = (Process(("y",), {"y": -1}), Process(("inflow",), {"y": 1}))
    model = ReactionDynamics(ReactionSettings(processes=processes, steps=60, rollout=4)).bind(problem).fit(data)
    rates = model.log_rate_.detach().exp() / model.scale_[0] ** torch.tensor([1.0, 0.0])
    torch.testing.assert_close(rates, torch.tensor([a, b], dtype=torch.float64), rtol=5e-3, atol=0)


def test_steps_of_another_length_are_refused_where_only_one_is_known() -> None:
    data = recorded(Sensing(), 8)
    model = LinearDynamics(1).bind(Oscillator().problem).fit(data)
    m = Measurement(torch.zeros(8, dtype=torch.int64), data.y[:, 0], data.z[:, :1], data.u[:, 0])
    h, u = model.init(Window(data.y[:, :1], data.u[:, :0], m)), data.u[:, 0]
    assert torch.equal(
        model.output(model.step(h, u, torch.full((8,), 0.1)))[0], model.output(model.step(h, u))[0]
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"steps of one control period \(0\.1\) only, asked for 0\.1 to 0\.3"):
        model.step(h, u, torch.linspace(0.1, 0.3, 8))


# ------------------------------------------------------------------ noise


def test_particles_of_a_linear_model_spread_as_its_covariance_says() -> None:
    sim = PlantSimulator(Oscillator(noise_level=0.05), 32)
    data = collect(sim, HeldLevels(), episodes=64, seed=0)
    model = LinearDynamics(context=1, choose=False).bind(sim.problem).fit(data)
    m = Measurement(torch.zeros(2, dtype=torch.int64), data.y[:2, 0], data.z[:2, :1], data.u[:2, 0])
    h, U = model.init(Window(data.y[:2, :1], data.u[:2, :0], m)), data.u[:2, :6]
    found = model.predict(h, U, particles=20_000)
    system, P = model.state_space(), torch.zeros(2, 2, dtype=torch.float64)
    for j in range(6):
        P = system.A @ P @ system.A.T + system.W
        drawn = found.y[:, :, j, 1:]
        expected = model.predict(h, U).y[:, 0, j, 1:]
        torch.testing.assert_close(drawn.mean(dim=1), expected, rtol=0, atol=4 * float(P.diag().max()) ** 0.5 / 141)
        for row in drawn:
            torch.testing.assert_close(torch.cov(row.T), P, rtol=0.05, atol=0.03 * float(P.diag().max()))
    again = model.predict({name: part[1:] for name, part in h.items()}, U[1:], particles=8)  # type: ignore[union-attr]
    torch.testing.assert_close(again.y[0], model.predict(h, U, particles=8).y[1])


@pytest.mark.parametrize("particles", [2, 3, 8])
def test_few_particles_pull_nowhere(particles: int) -> None:
    model = LinearDynamics(context=1, choose=False).bind(Oscillator().problem).fit(recorded(Sensing(), 8))
    w = model._drawn(particles, 3, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(w.mean(dim=0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(w.std(dim=0, correction=0), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_row_does_not_depend_on_how_long_the_others_take(name: str) -> None:
    data = recorded(Sensing(irregular=4))
    model = FITTED[name]().bind(Oscillator().problem).fit(data)
    m = Measurement(torch.zeros(12, dtype=torch.int64), data.y[:, 0], data.z[:, :1], data.u[:, 0])
    h, u = model.init(Window(data.y[:, :1], data.u[:, :0], m)), data.u[:, 0]
    dt = torch.linspace(0.05, 0.63, 12, dtype=torch.float64)
    together, _ = model.output(model.step(h, u, dt))
    for i in (0, 5, 11):
        one = {key: part[i : i + 1] for key, part in h.items()}  # type: ignore[union-attr]
        alone, _ = model.output(model.step(one, u[i : i + 1], dt[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-6, atol=1e-6)


def test_what_nobody_could_judge_is_no_fit() -> None:
    """One output is seen only where an episode begins: no prediction ahead meets anything that was measured."""
    data = recorded(Sensing(), 12)
    seen = torch.zeros_like(data.seen)
    seen[:, :2] = True
    model = NeuralODE(NeuralODESettings(context=1, hidden=(4,), steps=20, batch=8, rollout=2, substeps=1))
    fitted = model.bind(Oscillator().problem).fit(replace(data, seen=seen))
    assert all(bool(torch.isfinite(value).all()) for value in fitted.state_dict().values())
