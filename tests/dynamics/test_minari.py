"""Minari data sets: what is written is what happened, and what is read is what was written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamics_test_plants import Oscillator

from steersman.dynamics.base import Trajectories
from steersman.dynamics.collect import HeldLevels, begin, collect
from steersman.dynamics.recorded.log import Log
from steersman.dynamics.recorded.tables import read_table
from steersman.envs.actions import ActionSet
from steersman.envs.episodes import episodes
from steersman.envs.objective import Objective
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import PlantSimulator

minari = pytest.importorskip("minari", reason="the extra data is not installed")
pytest.importorskip("h5py", reason="the extra data is not installed")
from steersman.dynamics.recorded import minari_sets  # noqa: E402


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))


def simulator(n: int, limit: float = 1.3) -> PlantSimulator:
    plant = Oscillator(noise_level=0.1, limit=limit)
    plant.horizon = 25
    return PlantSimulator(plant, n, price=9.0)


def test_a_plant_is_recorded_with_its_rewards_and_ends(tmp_path: Path) -> None:
    folder = minari_sets.record("plant/held-v0", simulator(8), HeldLevels(), count=12, seed=3)
    assert folder == tmp_path / "sets" / "plant" / "held-v0"
    found = list(minari.load_dataset("plant/held-v0").iterate_episodes())
    data = collect(simulator(8), HeldLevels(), episodes=12, seed=3)
    assert len(found) == len(data) == 16
    lengths, ended = data.valid.sum(dim=1), 0
    sim, policy = simulator(8), HeldLevels()
    for first in (0, 8):
        steps = list(_seen(sim, begin(sim, policy, 3, first // 8), policy))
        for row in range(8):
            episode, length = found[first + row], int(lengths[first + row])
            assert len(episode) == length and episode.observations.shape == (length + 1, 3)
            np.testing.assert_array_equal(episode.observations, data.y[first + row, : length + 1].numpy())
            np.testing.assert_array_equal(episode.actions, data.u[first + row, :length].numpy())
            np.testing.assert_array_equal(episode.rewards, [-float(cost[row]) for cost, _, _ in steps[:length]])
            _, over, truncated = steps[length - 1]
            assert bool(over[row]) and not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
            assert episode.truncations[-1] == bool(truncated[row]) != episode.terminations[-1]
            assert (length == 25) or episode.terminations[-1]
            if episode.terminations[-1] and length < 25:  # the price of the steps that are left
                assert episode.rewards[-1] <= -9.0 * (25 - length)
            ended += int(episode.terminations[-1])
    assert 2 < ended < 14


def _seen(sim: PlantSimulator, scenarios, policy):  # type: ignore[no-untyped-def]
    for step in episodes(sim, scenarios, policy):
        yield step.result.cost, step.result.ended, step.result.truncated


def test_what_is_broken_off_is_truncated_and_names_its_environment() -> None:
    minari_sets.record(
        "short-v0",
        simulator(4, limit=99.0),
        HeldLevels(),
        count=4,
        seed=0,
        steps=6,
        env="steersman.envs:steersman/Pendulum-v1",
    )
    found = minari.load_dataset("short-v0")
    assert found.total_episodes == 4 and found.total_steps == 24
    assert found.spec.env_spec.id == "steersman/Pendulum-v1"
    for episode in found.iterate_episodes():
        assert episode.truncations.tolist() == [False] * 5 + [True] and not episode.terminations.any()
    with pytest.raises(ValueError, match="already exists"):
        minari_sets.record("short-v0", simulator(4), HeldLevels(), count=4, seed=0)


def mixed() -> tuple[Trajectories, ControlProblem]:
    """Levels, a switch of three, and a gap in the second episode."""
    actions = ActionSet(
        (-2.0, 0.0, 0.0, 0.0), (3.0, 1.0, 1.0, 1.0), (True, False, False, False), ((1, 2, 3),), ("level", "a", "b", "c")
    )
    gen = torch.Generator().manual_seed(0)
    y = torch.randn(2, 9, 2, generator=gen, dtype=torch.float64)
    u = actions.sample(torch.rand(16, 4, generator=gen, dtype=torch.float64)).reshape(2, 8, 4)
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[1, 3] = False
    return Trajectories(y, y, u, valid, 0.25), ControlProblem(actions, Objective(()), 0.25, 8, ("p", "q"), ("p", "q"))


def test_trajectories_and_back_through_a_log() -> None:
    data, problem = mixed()
    minari_sets.write("mixed-v0", data, problem)
    found = minari.load_dataset("mixed-v0")
    assert found.spec.action_space.nvec.tolist() == [3, 6] and [len(e) for e in found.iterate_episodes()] == [8, 3, 4]
    assert all(np.isnan(e.rewards).all() and e.truncations[-1] for e in found.iterate_episodes())
    log = Log(
        file="minari:mixed-v0", outputs=("p", "q"), episode="episode", time="time", integer=("level", "a", "b", "c"),
        actions={"level": (-2.0, 3.0), "a": (0.0, 1.0), "b": (0.0, 1.0), "c": (0.0, 1.0)},
    )  # fmt: skip
    read = log.read()
    assert read.data.period == 0.25 and read.data.steps == 15 and read.notes == ()
    parts = [(0, 0, 8), (1, 0, 3), (1, 4, 8)]
    for row, (episode, first, last) in enumerate(parts):
        assert torch.equal(read.data.y[row, : last - first + 1], data.y[episode, first : last + 1])
        assert torch.equal(read.data.u[row, : last - first], data.u[episode, first:last])
        assert read.data.valid[row].tolist() == [True] * (last - first) + [False] * (8 - last + first)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sets_of_others_have_columns_by_their_spaces() -> None:
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    box = spaces.Box(-9, 9, (2,))
    buffer = EpisodeBuffer(
        observations={"goal": np.arange(6.0).reshape(3, 2), "level": np.array([1, 2, 0])}, actions=np.array([1, 0]),
        rewards=[0.5, 1.5], terminations=[False, True], truncations=[False, False],
    )  # fmt: skip
    minari.create_dataset_from_buffers(
        "theirs/any-v3", [buffer], action_space=spaces.Discrete(2), description="x", algorithm_name="x", author={"x"},
        author_email={"x"}, code_permalink="x", observation_space=spaces.Dict({"goal": box, "level": spaces.Discrete(3)}),
    )  # fmt: skip
    table = read_table("minari:theirs/any-v3")
    assert {name: column.tolist() for name, column in table.items() if name != "episode"} == {
        "observation.goal[0]": [0, 2, 4], "observation.goal[1]": [1, 3, 5], "observation.level": [1, 2, 0],
        "action": [1, 0, 0], "reward": [0.5, 1.5, pytest.approx(np.nan, nan_ok=True)],
        "terminated": [0, 1, pytest.approx(np.nan, nan_ok=True)],
        "truncated": [0, 0, pytest.approx(np.nan, nan_ok=True)],
    }  # fmt: skip
    assert set(table["episode"]) == {"0"}


def test_a_fit_reads_a_set_and_notices_when_it_changes(tmp_path: Path) -> None:
    from steersman.experiments.fitted.fit import fit
    from steersman.experiments.fitted.spec import read_fitting

    minari_sets.record("osc-v0", simulator(8, 99.0), HeldLevels(), count=8, seed=1)
    (tmp_path / "osc.toml").write_text(
        '[log]\nfile = "minari:osc-v0"\noutputs = ["q", "v"]\nepisode = "episode"\ntime = "time"\n'
        '[log.actions]\nu0 = [-1.0, 1.0]\n[score]\nhorizon = 5\n[[models]]\nuse = "linear"\nsettings = { context = 1, choose = false }\n'
    )
    spec = read_fitting(tmp_path / "osc.toml")
    (first,) = fit(spec, tmp_path / "out").models
    assert first.failure == "" and first.relative(1) < 0.6
    made = json.loads((tmp_path / "out" / "linear" / "model.json").read_text())["about"]["key"]
    fit(spec, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "linear" / "model.json").read_text())["about"]["key"] == made
    minari.delete_dataset("osc-v0")
    minari_sets.record("osc-v0", simulator(8, 99.0), HeldLevels(), count=8, seed=2)
    fit(spec, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "linear" / "model.json").read_text())["about"]["key"] != made


def test_what_is_wrong_is_named() -> None:
    data, problem = mixed()
    with pytest.raises(FileNotFoundError, match=r"no Minari data set 'no/such-v0' in .*'minari download no/such-v0'"):
        read_table("minari:no/such-v0")
    with pytest.raises(ValueError, match=r"rewards must have shape \(2, 8\), for these trajectories, got \(2, 9\)"):
        minari_sets.write("x-v0", data, problem, rewards=torch.zeros(2, 9))
    with pytest.raises(ValueError, match="problem has 2 outputs and 1 actions, and data 2 and 4"):
        minari_sets.write("x-v0", data, replace(problem, actions=ActionSet((0.0,), (1.0,))))
    nothing = replace(data, valid=torch.zeros_like(data.valid))
    with pytest.raises(ValueError, match="no transition that happened"):
        minari_sets.write("x-v0", nothing, problem)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        minari_sets.record("x-v0", simulator(2), HeldLevels(), count=0, seed=0)
