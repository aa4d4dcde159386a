"""Four models that ship with Mesa as control problems; each shows what your own model needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from mesa.examples.advanced.epstein_civil_violence.agents import Citizen
from mesa.examples.advanced.epstein_civil_violence.model import EpsteinCivilViolence
from mesa.examples.advanced.sugarscape_g1mt.model import SugarscapeG1mt
from mesa.examples.advanced.wolf_sheep.agents import GrassPatch, Sheep, Wolf
from mesa.examples.advanced.wolf_sheep.model import WolfSheep
from mesa.experimental.devs import ABMSimulator

from steersman.envs.abm.mesa_task import MesaTask, Outputs
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.rows.base import Vector

# ------------------------------------------------------------------ wolf-sheep: remove animals


def _herd(seed: int) -> WolfSheep:
    return WolfSheep(width=30, height=30, sheep_gain_from_food=6, seed=seed, simulator=ABMSimulator())


def _remove(model: Any, u: Vector) -> None:
    for kind, share in zip((Sheep, Wolf), u, strict=True):
        for agent in list(model.agents_by_type[kind]):
            if model.random.random() < share:
                agent.remove()


def _herd_counts(model: Any) -> Outputs:
    grown = sum(patch.fully_grown for patch in model.agents_by_type[GrassPatch])
    return len(model.agents_by_type[Sheep]), len(model.agents_by_type[Wolf]), grown


wolf_sheep = MesaTask(
    model=_herd, control=_remove, measure=_herd_counts, hold=2, horizon=40,
    actions=ActionSet((0.0, 0.0), (0.2, 0.2), names=("remove_sheep", "remove_wolves")),
    objective=Objective((Quadratic(name="tracking", on="e", weights=(1e-4, 1e-3, 0.0)),)),
    measured=("sheep", "wolves", "grass"), target=(150.0, 40.0, 0.0),
)  # fmt: skip

# ------------------------------------------------------------------ a virus on a network: check nodes more often


def _network(seed: int) -> Any:
    from mesa.examples.basic.virus_on_network.model import VirusOnNetwork  # needs networkx

    return VirusOnNetwork(num_nodes=60, avg_node_degree=5, initial_outbreak_size=5, recovery_chance=0.2,
                          gain_resistance_chance=0.1, seed=seed)  # fmt: skip


def _check(model: Any, u: Vector) -> None:
    for agent in model.agents:
        agent.virus_check_frequency = float(u[0])


def _infections(model: Any) -> Outputs:
    states = [agent.state.name for agent in model.agents]
    return states.count("INFECTED"), states.count("SUSCEPTIBLE"), states.count("RESISTANT")


virus = MesaTask(
    model=_network, control=_check, measure=_infections, horizon=40,
    actions=ActionSet((0.0,), (1.0,), names=("check_frequency",)),
    objective=Objective((
        Quadratic(name="infected", on="z", weights=(0.01, 0.0, 0.0)), Quadratic(name="checks", on="u", weights=(2.0,)),
    )),
    measured=("infected", "susceptible", "resistant"),
)  # fmt: skip

# ------------------------------------------------------------------ civil violence: legitimacy on or off


def _city(seed: int) -> EpsteinCivilViolence:
    return EpsteinCivilViolence(width=20, height=20, citizen_vision=4, cop_vision=4, max_jail_term=20, seed=seed)


def _campaign(model: Any, u: Vector) -> None:
    for citizen in model.agents_by_type[Citizen]:
        citizen.regime_legitimacy = 0.7 + 0.15 * u[0]
        citizen.grievance = citizen.hardship * (1 - citizen.regime_legitimacy)


def _unrest(model: Any) -> Outputs:
    return model.ACTIVE, model.ARRESTED, model.QUIET


civil_violence = MesaTask(
    model=_city, control=_campaign, measure=_unrest, horizon=40,
    actions=ActionSet((0.0,), (1.0,), (True,), names=("campaign",)),
    objective=Objective((
        Quadratic(name="active", on="z", weights=(1e-3, 0.0, 0.0)), Quadratic(name="campaign", on="u", weights=(1.0,)),
    )),
    measured=("active", "arrested", "quiet"),
)  # fmt: skip

# ------------------------------------------------------------------ sugarscape: feed the landscape (property layers)


def _landscape(seed: int) -> SugarscapeG1mt:
    return SugarscapeG1mt(initial_population=100, seed=seed)


def _feed(model: Any, u: Vector) -> None:
    for layer, amount in ((model.grid.sugar, u[0]), (model.grid.spice, u[1])):
        layer.data = layer.data + amount


def _economy(model: Any) -> Outputs:
    return len(model.agents), float(np.mean(model.grid.sugar.data)), float(np.mean(model.grid.spice.data))


sugarscape = MesaTask(
    model=_landscape, control=_feed, measure=_economy, horizon=20,
    actions=ActionSet((0.0, 0.0), (2.0, 2.0), names=("sugar", "spice")),
    objective=Objective((
        Quadratic(name="population", on="e", weights=(1e-3, 0.0, 0.0)),
        Quadratic(name="food", on="u", weights=(0.1, 0.1)),
    )),
    measured=("traders", "sugar", "spice"), target=(100.0, 0.0, 0.0),
)  # fmt: skip
