"""Mapped packages survive pickling, spawned workers and a wheel."""

import multiprocessing
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from steersman.envs import make_plant, noise
from steersman.envs.simulator import PlantSimulator

ROOT = Path(__file__).parents[2]


def _first_cost(plant_id: str) -> float:
    sim = PlantSimulator(make_plant(plant_id), 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    return float(sim.step(torch.zeros(1, sim.actions.m)).cost)


def test_plants_pickle() -> None:
    plant = pickle.loads(pickle.dumps(make_plant("steersman/Pendulum-v1")))
    assert type(plant).__module__ == "steersman.envs.classic.pendulum"


def test_spawned_worker_gives_the_same_number() -> None:
    code = (
        "import steersman.envs as e, torch\n"
        "from steersman.envs import noise\n"
        "s = e.make_simulator('steersman/Pendulum-v1', 1)\n"
        "s.reset(s.scenarios(noise.keys(0, 1)))\n"
        "print(repr(float(s.step(torch.zeros(1, 1)).cost)))"
    )
    here = _first_cost("steersman/Pendulum-v1")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert float(run.stdout) == here
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(make_plant, ("steersman/Pendulum-v1",)).horizon == 200


@pytest.mark.slow
def test_wheel_contains_every_module(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for package in ("envs", "dynamics", "controllers", "optimizers", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            assert f"steersman/{path.relative_to(ROOT)}" in names
