"""Environments by name: every form of an id, wrappers, the length of episodes, and one line for what is missing."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from odd_lab import Base

from steersman.controllers.rollout import run_episodes
from steersman.envs import make_simulator, noise
from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.gymnasium_adapters.gym_simulator import GymSimulator
from steersman.envs.gymnasium_adapters.make import env_maker, horizon


def returns(simulator: Any) -> list[float]:
    scenarios = simulator.scenarios(noise.keys(0, simulator.n))
    cost: torch.Tensor = -run_episodes(simulator, scenarios, lambda m: simulator.actions.neutral(m.n, m.y)).cost
    return cost.tolist()


@pytest.mark.parametrize(
    ("id", "steps", "length"),
    [
        ("Lab/Counter-v0", None, 5),
        ("odd_lab:Lab/Counter-v0", None, 5),
        ("odd_lab:Lab/Counter-v0", 3, 3),
        ("odd_lab:Base", 6, 6),
        ("odd_lab:factory", None, 4),
        ("odd_lab:factory", 2, 2),
        (Base, 7, 7),
        (lambda: Base(), 2, 2),
    ],
)
def test_every_form_of_an_id(id: Any, steps: int | None, length: int) -> None:
    simulator = make_simulator(id, 2, max_episode_steps=steps)
    assert isinstance(simulator, GymSimulator) and simulator.problem.horizon == length
    assert returns(simulator) == [length, length]
    simulator.close()


def test_a_module_registers_its_environments_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_lab.py").write_text(
        "import gymnasium\ngymnasium.register('Late-v0', entry_point='odd_lab:Base', max_episode_steps=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "Late-v0" not in gymnasium.registry
    assert returns(make_simulator("late_lab:Late-v0", 1)) == [3]


def test_settings_whatever_they_are_called() -> None:
    simulator = make_simulator("odd_lab:factory", 1, limit=3)
    assert simulator.problem.horizon == 3
    with pytest.raises(ValueError, match=r"factory cannot be made .*unexpected keyword argument 'limits'"):
        make_simulator("odd_lab:factory", 1, limits=3)


def test_wrappers_by_name() -> None:
    wrappers = [("odd_lab:Double", {"factor": 3.0}), ("odd_lab:Double", {}), ("FlattenObservation", {})]
    assert returns(make_simulator("Lab/Counter-v0", 1, wrappers=wrappers)) == [30]
    with pytest.raises(ValueError, match=r"unknown wrapper 'Nothing'; give module:Wrapper"):
        make_simulator("Lab/Counter-v0", 1, wrappers=[("Nothing", {})])
    with pytest.raises(ValueError, match=r"wrapper Double cannot be made .*'by'"):
        make_simulator("Lab/Counter-v0", 1, wrappers=[("odd_lab:Double", {"by": 1})])
    with pytest.raises(ValueError, match=r"builtins.str is not a gymnasium.Env"):
        make_simulator("Lab/Counter-v0", 1, wrappers=[("builtins:str", {})])


def test_episodes_need_a_length() -> None:
    with pytest.raises(ValueError, match=r"has no max_episode_steps.*set max_episode_steps"):
        make_simulator("odd_lab:Base", 1)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, got 0"):
        make_simulator("odd_lab:Base", 1, max_episode_steps=0)
    wrapped = gymnasium.wrappers.NormalizeReward(gymnasium.wrappers.TimeLimit(Base(), 9))
    assert horizon(wrapped) == 9 and horizon(Base()) is None


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("Nothing-v9", "unknown environment 'Nothing-v9'.*known plants: steersman/"),
        ("CartPole-v99", "unknown environment.*v99"),
        (
            "odd_lab:Nothing-v0",
            "unknown environment 'odd_lab:Nothing-v0' .module 'odd_lab' has no 'Nothing-v0', and regi",
        ),
        ("odd_lab:Tnk", r"module 'odd_lab' has no 'Tnk' \(did you mean 'Tank'\?\), and registers no environment"),
        ("odd_lab:CartPole-v2", "registers no environment"),
        ("odd_lab:instance", "its type is Base; name a class, or a function that makes an environment"),
        ("odd_lab:number", "its type is int; name a class, or a function that makes an environment"),
        ("odd_lab:not_an_environment", "builtins.object is not a gymnasium.Env"),
        ("no_such_lab:Env", "run steersman in the folder of that module"),
        ("gymnasium:make_vec", "cannot be made"),
    ],
)
def test_what_is_no_environment(id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_simulator(id, 1, max_episode_steps=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (
            "hint_lab.py:Vessel",
            "'hint_lab.py:Vessel' names a file; write hint_lab:Vessel, and run steersman in the folder",
        ),
        ("deep/hint_lab.py:Vessel", "names a file; write hint_lab:Vessel"),
        ("Vessel-v0", r"hint_lab.py beside you names it: write hint_lab:Vessel-v0; known plants"),
        ("Vessel", r"hint_lab.py beside you names it: write hint_lab:Vessel; known plants"),
        ("hint_lab", "hint_lab.py lies beside you: name what it holds as module:name, such as hint_lab:Vessel; known"),
        ("Barrel-v0", r"unknown environment 'Barrel-v0' \(NameNotFound: [^)]*\); known plants"),
    ],
)
def test_what_an_unknown_id_may_be_meant_for(
    id: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files beside the user are read, never run."""
    (tmp_path / "hint_lab.py").write_text(
        "raise SystemExit\nclass Unrelated: ...\nclass Vessel(gymnasium.Env): ...\nid = 'Vessel-v0'\n"
    )
    (tmp_path / "broken_lab.py").write_bytes(b"\xff\xfe not python")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        make_simulator(id, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [(None, "{} is missing; give the environment one"), (3, "{} is of type int; give the environment one")],
)
@pytest.mark.parametrize("name", ["action_space", "observation_space"])
def test_what_is_no_space(name: str, space: Any, message: str) -> None:
    kind = type("Bare", (Base,), {name: space})
    with pytest.raises(ValueError, match=f"^{message.format(name)}"):
        make_simulator(kind, 1, max_episode_steps=3)

    class Undeclared(gymnasium.Env[Any, Any]):
        """What its class should have and has not."""

    with pytest.raises(ValueError, match=r"^observation_space is missing"):
        make_simulator(Undeclared, 1, max_episode_steps=3)


def test_vector_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="is a vector environment"):
        make_simulator(lambda: gymnasium.make_vec("CartPole-v1", num_envs=1), 1)


def test_a_missing_dependency_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_lab.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "sick_lab.py").write_text("raise OSError('no\\nlibrary')\n")
    (tmp_path / "late_need.py").write_text(
        "import gymnasium\n\n\nclass Env(gymnasium.Env):\n    def __init__(self):\n"
        "        import a_package_that_nobody_has\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for id in ("needy_lab:Env", "late_need:Env"):
        with pytest.raises(ValueError, match="pip install a_package_that_nobody_has") as caught:
            make_simulator(id, 1, max_episode_steps=2)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"cannot be imported \(OSError: no library\)"):
        make_simulator("sick_lab:Env", 1)


@pytest.mark.skipif("Box2D" in sys.modules, reason="Box2D is installed")
def test_gymnasium_s_own_missing_dependencies_are_one_line() -> None:
    try:
        import Box2D  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"needs something that is not installed: .*pip install") as caught:
            env_maker("LunarLander-v3")()
        assert "\n" not in str(caught.value)


def test_plants_refuse_what_is_said_of_environments() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        make_simulator("steersman/Pendulum-v1", 1, max_episode_steps=3)
    with pytest.raises(ValueError, match="workers would say"):
        make_simulator("steersman/Pendulum-v1", 1, workers=2)


def test_as_an_environment_of_ours() -> None:
    env = PlantEnv(make_simulator("odd_lab:factory", 1))
    env.reset(seed=0)
    for _ in range(4):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert (reward, terminated, truncated) == (1.0, False, True)
