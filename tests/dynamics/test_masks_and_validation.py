"""What a fit may learn from, which weights it keeps, and what its doubt says."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from dynamics_test_plants import Oscillator
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect, collect_means
from steersman.dynamics.continuous.neural_ode import NeuralODE, NeuralODESettings
from steersman.dynamics.kinetic.reactions import Process, ReactionDynamics, ReactionSettings
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.linear.regression import ridge
from steersman.dynamics.registry import MODELS
from steersman.dynamics.windowed.base import Batches, huber
from steersman.dynamics.windowed.ensemble import new_ensemble, train
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.dynamics.windowed.windows import cut, starts
from steersman.envs.simulator import PlantSimulator
from steersman.optimizers.resumable import Resumable

KINETICS = (Process(("q",), {"v": -1.0}), Process(("v",), {"q": 1.0}), Process(("u0",), {"v": 1.0}))
FITTED: dict[str, Callable[[], Dynamics]] = {
    "linear": lambda: LinearDynamics(2),
    "neural": lambda: NeuralDynamics(NeuralSettings(context=2, hidden=(6,), members=2, steps=30, batch=16)),
    "neural-ode": lambda: NeuralODE(NeuralODESettings(hidden=(6,), steps=20, batch=16, rollout=4)),
    "sparse": lambda: SparseNeuralDynamics(
        SparseSettings(relus=3, hidden=(6,), dense_steps=15, rounds=1, round_steps=10, tune_steps=15, batch=16)
    ),
    "reactions": lambda: ReactionDynamics(ReactionSettings(processes=KINETICS, steps=3, batch=16)),
}


@pytest.fixture(scope="module")
def short() -> Trajectories:
    """Episodes of which some ended early; outputs are positive, as kinetics wants them."""
    data = collect(PlantSimulator(Oscillator(limit=1.4), 6), HeldLevels(), episodes=24, seed=1, steps=40)
    assert 0.2 < data.valid.double().mean() < 0.95
    return replace(data, y=data.y + 3.0)


@pytest.mark.parametrize("name", FITTED)
def test_data_whose_squares_overflow_are_refused(name: str, short: Trajectories) -> None:
    z = short.z.clone()
    z[3, 2, 1] = 1e300
    with pytest.raises(ValueError, match=r"z\[1\] \(\w+\) reaches 1e\+300 in step 1 of episode 3"):
        FITTED[name]().bind(Oscillator().problem).fit(replace(short, z=z))


def test_every_fitted_model_is_covered() -> None:
    assert set(FITTED) == {spec.name for spec in MODELS if not spec.needs_plant}


@pytest.mark.parametrize("name", FITTED)
def test_what_comes_after_the_end_of_an_episode_teaches_nothing(name: str, short: Trajectories) -> None:
    """Numbers after the end are exchanged, for large and for missing ones: the fit does not notice."""
    before = torch.cat([torch.ones_like(short.valid[:, :1]), short.valid], dim=1)[
        ..., None
    ]  # entry t ends transition t-1

    def spoiled(value: float) -> Trajectories:
        y, z = (torch.where(before, part, value) for part in (short.y, short.z))
        return replace(short, y=y, z=z, u=torch.where(short.valid[..., None], short.u, value))

    want, big, missing = (
        FITTED[name]().bind(Oscillator().problem).fit(spoiled(value)).state_dict() for value in (0.5, 40.0, torch.nan)
    )
    assert want
    for key, value in want.items():
        torch.testing.assert_close(big[key], value, rtol=1e-6, atol=1e-9, msg=f"{key} learned from what did not happen")
        torch.testing.assert_close(missing[key], value, rtol=1e-6, atol=1e-9)


def test_windows_begin_only_where_all_of_their_transitions_happened() -> None:
    valid = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])
    assert starts(valid, 2, 2).tolist() == [[0, 1], [1, 1], [1, 2], [1, 3]]
    assert starts(valid, 1, 3).tolist() == [[0, 0], [1, 0], [1, 1], [1, 2]]
    series = torch.arange(10.0).reshape(2, 5, 1)
    assert cut(series, torch.tensor([[1, 2]]), -1, 3).flatten().tolist() == [6.0, 7.0, 8.0]
    with pytest.raises(ValueError, match="no episode has 4 valid transitions"):
        starts(valid[:1], 3, 2)
    with pytest.raises(ValueError, match="need episodes of 6 transitions, the data have 5"):
        starts(valid, 4, 3)


def test_one_window_is_too_few_to_train_on(short: Trajectories) -> None:
    one = replace(short, valid=torch.zeros_like(short.valid))
    one.valid[3, 7] = True
    for name in ("neural", "neural-ode", "sparse"):
        model = FITTED[name]()
        model.context = 1
        with pytest.raises(
            ValueError, match="at least two windows, one of them to be held back, got 1; collect more steps"
        ):
            model.bind(Oscillator().problem).fit(one)


def test_errors_of_rollouts_count_only_steps_that_happened(short: Trajectories) -> None:
    """Against a loop over windows and steps, with a change of zero as the prediction."""
    model = NeuralDynamics(NeuralSettings(context=2)).bind(Oscillator().problem)
    model._prepare(short)
    padded = model._pad(short, 3)
    model._normalise(short, padded)
    batches = Batches(
        model, padded, ahead=3, members=1, batch=4, validation=0.2, gen=torch.Generator().manual_seed(0)
    )  # fmt: skip
    rows = torch.cat([batches.rows, batches.held])
    found = float(batches.error(lambda x, periods: torch.zeros(1, len(rows), 2), rows))
    total, count = 0.0, 0
    for episode, t in rows.tolist():
        for j in range(3):
            if not bool(padded.valid[episode, t + j]):
                break
            now = batches.y[episode, t]
            total += float(huber((now - batches.y[episode, t + j + 1]) / batches.delta).mean())
            count += 1
    assert found == pytest.approx(total / count, rel=1e-4)
    assert count < 3 * len(rows), "some rollouts run over an end"


# ------------------------------------------------------------------ which weights a training keeps


def trained(
    validations: list[float], steps: int = 40, patience: int = 3, every: int = 5
) -> tuple[Tensor, list[Tensor], int]:
    """Weights after a training with scripted validations, those at each validation, and the gradient steps taken."""
    weights, seen, script, calls = {"w": torch.zeros(3)}, [], iter(validations), [0]

    def loss() -> Tensor:
        calls[0] += 1
        return -weights["w"].sum()

    def validate() -> float:
        seen.append(weights["w"].detach().clone())
        return next(script)

    train(
        [weights], loss, validate, steps=steps, rate=0.1, patience=patience, every=every, stage="test",
        progress=lambda f, text: None, gen=torch.Generator(), resumable=Resumable(None),
    )  # fmt: skip
    return weights["w"], seen, calls[0]


def test_training_ends_with_the_weights_that_validated_best() -> None:
    best, seen, steps = trained([9.0, 5.0, 3.0, 4.0, 3.5, 2.0, 6.0, 7.0, 8.0])
    assert torch.equal(best, seen[5]) and steps == 40
    assert not torch.equal(seen[5], seen[-1]) and not best.requires_grad
    first, seen, steps = trained([1.0, 5.0, 4.0, 3.0])
    assert torch.equal(first, seen[0]), "training never makes matters worse"
    assert steps == 15, "three validations without improvement end it"
    last, seen, steps = trained([9.0, 8.0, 7.0], steps=7)
    assert torch.equal(last, seen[2]) and steps == 7, "the last step is validated too"
    tied, seen, _ = trained([5.0, 5.0, 5.0, 5.0])
    assert torch.equal(tied, seen[0])
    late, seen, steps = trained([9.0, 9.0, 9.0, 4.0, 9.0, 9.0, 9.0], steps=100)
    assert torch.equal(late, seen[3]) and steps == 30, "an improvement makes patience new"


def test_fresh_ensembles_are_the_linear_map_they_start_from() -> None:
    gen = torch.Generator().manual_seed(0)
    skip = torch.randn(4, 2, generator=gen)
    weights = new_ensemble(3, 4, (500,), 2, gen, skip)
    from steersman.dynamics.windowed.ensemble import forward

    x = torch.randn(3, 5, 4, generator=gen)
    torch.testing.assert_close(forward(weights, x), x @ skip)
    spread = float(weights["w0"].std())
    assert spread == pytest.approx(0.5, rel=0.05), "uniform in +-sqrt(3 / fan_in) has a variance of 1 / fan_in"
    assert not torch.equal(weights["w0"][0], weights["w0"][1])


# ------------------------------------------------------------------ doubt


@pytest.fixture(scope="module")
def neural() -> tuple[NeuralDynamics, Trajectories]:
    data = collect(PlantSimulator(Oscillator(), 6), HeldLevels(), episodes=12, seed=1)
    settings = NeuralSettings(context=2, hidden=(8,), members=3, steps=50)
    return NeuralDynamics(settings).bind(Oscillator().problem).fit(data), data


def hidden(data: Trajectories, t: int = 20) -> tuple[dict[str, Tensor], Tensor]:
    y = data.y[:, t - 1 : t + 1, 1:]
    return {"y": y, "u": data.u[:, t - 1 : t], "exogenous": data.y[:, t, :1]}, data.u[:, t]


def test_doubt_is_below_one_inside_the_data_and_grows_outside(neural: tuple[NeuralDynamics, Trajectories]) -> None:
    model, data = neural
    inside = torch.cat([model.doubt(*hidden(data, t)) for t in range(2, 58)])
    assert 0.003 < float((inside > 1).double().mean()) < 0.04, "1 is the 99th percentile of each of two distances"
    h, u = hidden(data)
    far = [float(model.doubt({**h, "y": h["y"] + shift}, u).detach().mean()) for shift in (0.0, 5.0, 50.0)]
    assert far[0] < 1 < far[1] < far[2]
    assert float(model.doubt(h, u + 30.0).detach().mean()) > 1, "an action outside counts as well"


def test_disagreement_of_the_members_is_doubt_even_in_the_midst_of_the_data(
    neural: tuple[NeuralDynamics, Trajectories],
) -> None:
    model, data = neural
    other = NeuralDynamics(model.settings).bind(Oscillator().problem)
    other.load_state_dict(model.state_dict())
    h, u = hidden(data)
    before = other.doubt(h, u).detach()
    with torch.no_grad():
        other.core_b1_ += torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
    after = other.doubt(h, u).detach()
    # Offsets -1, 0, 1 have a standard deviation of sqrt(2/3), beside what the members disagreed before.
    assert float(before.mean()) < 1 < float(after.min())
    torch.testing.assert_close(
        after, torch.full_like(after, (2 / 3) ** 0.5 / float(other.edge_[1])), rtol=0.1, atol=0.0
    )  # fmt: skip
    torch.testing.assert_close(other.step(h, u)["y"], model.step(h, u)["y"])  # a prediction is the mean of the members


# ------------------------------------------------------------------ data


def test_ridge_is_the_minimiser_of_what_it_says() -> None:
    gen = torch.Generator().manual_seed(0)
    phi, target = (torch.randn(30, d, generator=gen, dtype=torch.float64) for d in (4, 2))
    want = torch.linalg.solve(phi.T @ phi / 30 + 0.3 * torch.eye(4, dtype=torch.float64), phi.T @ target / 30)
    torch.testing.assert_close(ridge(phi, target, 0.3), want)


def test_means_over_replicas_share_their_actions_and_end_with_the_first_row() -> None:
    sim = PlantSimulator(Oscillator(limit=1.6), 8)
    found = collect_means(sim, HeldLevels(), groups=3, seed=2, steps=30)
    assert found.y.shape == (3, 31, 3) and not torch.equal(found.u[0], found.u[1])
    every = torch.ones(3, 1, dtype=torch.bool)
    alive = torch.cat([every, found.valid], dim=1)
    assert bool((alive[:, :-1] | ~found.valid).all()), "once over, over"
    calm = collect_means(PlantSimulator(Oscillator(), 8), HeldLevels(), groups=1, seed=2, steps=30)
    v, q, u = calm.y[0, :-1, 2], calm.y[0, :-1, 1], calm.u[0, :, 0]
    torch.testing.assert_close(calm.y[0, 1:, 2], v + 0.1 * (-q - 0.3 * v + 1.5 * u + 0.1), atol=1e-12, rtol=0)


def test_splitting_and_saving_keep_episodes_whole(short: Trajectories, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, rest = short.split(0.25)
    assert (len(first), len(rest)) == (6, 18) and torch.equal(rest.y, short.y[6:])
    assert [len(part) for part in short.split(0.0)] == [1, 23] and [len(part) for part in short.split(1.0)] == [23, 1]
    short.save(tmp_path / "data.safetensors")
    again = Trajectories.load(tmp_path / "data.safetensors")
    assert torch.equal(again.valid, short.valid) and torch.equal(again.z, short.z) and again.period == short.period
