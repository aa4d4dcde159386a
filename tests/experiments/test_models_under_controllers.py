"""Every model under every controller that plans with one: it decides, or refuses by name; the published table says so.

Policies act untrained; what trains them through each model is tested beside them.

A table that has become wrong is written anew by ``python -m pytest tests/experiments/test_models_under_controllers.py``
into the file that the failure names.
"""

import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from steersman.controllers.base import Outcome
from steersman.controllers.registry import CONTROLLERS, make_controller
from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import MODELS, make_model
from steersman.envs import make_simulator, noise
from steersman.envs.simulator import Simulator
from steersman.experiments.spec.settings import validated

PAGE = Path(__file__).parents[2] / "experiments" / "models-and-controllers.md"
PLANTS = {"steersman/ReactionDiffusion-v1": "continuous actions", "steersman/TwoAreaBrake-v2": "a switch"}
SMALL = {
    "lqr": {"horizon": 5},
    "lqg": {},
    "mppi": {"horizon": 3, "samples": 8, "iterations": 1},
    "cem": {"horizon": 3, "samples": 8, "iterations": 1},
    "adjoint": {"horizon": 3, "iterations": 2},
    "enumeration": {"length": 2},
    "mip-mpc": {"horizon": 1, "time_limit": 30.0},
    "backstepping": {},
    "neural": {"horizon": 3, "steps": 2, "batch": 4, "hidden": (4,), "explore": 2, "renewals": 0, "refit": 0},
    "imitation": {"rounds": 1, "episodes": 2, "steps": 2, "hidden": (4,), "options": {"horizon": 3, "samples": 8}},
}
"""Settings under which a controller takes a moment."""
ROWS = 2


@cache
def simulator(plant: str) -> Simulator:
    found = make_simulator(plant, ROWS)
    found.price()
    return found


@cache
def data(plant: str) -> Trajectories:
    return collect(simulator(plant), HeldLevels(), episodes=8, seed=0, steps=12)


@cache
def model(plant: str, name: str) -> Dynamics:
    sim, spec = simulator(plant), next(spec for spec in MODELS if spec.name == name)
    settings = dict(spec.hasty or {})
    if name == "reactions":
        output, action = sim.problem.measured[0], sim.problem.actions.names[0]
        settings["processes"] = [{"rate": [action], "change": {output: 1.0}}, {"rate": [], "change": {output: -1.0}}]
    found = make_model(name, sim.plant, **validated(spec.make, settings, name))
    return found.bind(sim.problem) if spec.needs_plant else found.bind(sim.problem).fit(data(plant))


@cache
def answer(plant: str, controller: str, name: str) -> str:
    """``runs``, or how it refuses."""
    sim = simulator(plant)
    law = make_controller(controller, **SMALL[controller])  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models of a few numbers say so
        planned = model(plant, name)
    try:
        law.bind(sim.problem, planned)
    except ValueError as error:
        return str(error)
    law.reset(ROWS, gen=torch.Generator().manual_seed(0))
    sim.reset(sim.scenarios(noise.keys(3, ROWS)))
    m = sim.measure(law.preview)
    decision = law.act(m)
    assert not law.failed_decisions, law.notes
    assert bool(torch.isfinite(decision.u).all()) and torch.equal(decision.u, sim.actions.project(decision.u))
    assert bool((decision.outcome < int(Outcome.NEUTRAL)).all()), decision.outcome
    return "runs"


def table(plant: str) -> str:
    names, laws = [spec.name for spec in MODELS], list(SMALL)
    lines = [f"## {plant}: {PLANTS[plant]}", "", "| model | " + " | ".join(laws) + " |", "|---" * (len(laws) + 1) + "|"]
    for name in names:
        cells = ["runs" if answer(plant, law, name) == "runs" else "-" for law in laws]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    refused: dict[str, list[str]] = {}
    for law in laws:
        for name in names:
            if (told := answer(plant, law, name)) != "runs":
                text = re.sub(r", got \w+", "", told).removeprefix(f"{law} ")
                refused.setdefault(f"- `{law}` with {{}}: {text}", []).append(name)
    return "\n".join([*lines, "", *(text.format(", ".join(found)) for text, found in refused.items()), ""])


def test_every_pair_runs_or_refuses_as_the_page_says(tmp_path: Path) -> None:
    head = (
        "# Models under controllers\n\nWhich controller plans with which model; a dash refuses, and says so below.\n\n"
    )
    found = head + "\n".join(table(plant) for plant in PLANTS)
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != found:
        fresh = tmp_path / PAGE.name
        fresh.write_text(found, encoding="utf-8")
        raise AssertionError(f"{PAGE.name} is out of date; {fresh} is what it should be")


def test_all_controllers_that_take_a_model_are_in_the_table() -> None:
    assert set(SMALL) == {spec.name for spec in CONTROLLERS if spec.needs_model}


@pytest.mark.parametrize("plant", PLANTS)
def test_refusals_name_the_remedy(plant: str) -> None:
    told = [answer(plant, law, spec.name) for law in SMALL for spec in MODELS]
    assert all(any(word in text for word in ("use ", "needs", "give ", "plan with")) for text in told if text != "runs")
