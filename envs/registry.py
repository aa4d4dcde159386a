"""The list of plants. A new plant is enrolled here, and nowhere else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, cast

import gymnasium
import torch

from steersman.envs.gymnasium_adapters.env import PlantEnv
from steersman.envs.gymnasium_adapters.gym_simulator import Goal, GymSimulator
from steersman.envs.gymnasium_adapters.make import WrapperSettings, env_maker
from steersman.envs.gymnasium_adapters.outputs import Reading
from steersman.envs.gymnasium_adapters.vector import PlantVectorEnv
from steersman.envs.importing import imported
from steersman.envs.plant import Plant
from steersman.envs.plant_spec import LOAD, NAMESPACE, ORDER, versions
from steersman.envs.plant_spec import PlantSpec as PlantSpec
from steersman.envs.settings import missing
from steersman.envs.simulator import PlantSimulator, Simulator

_TRACKING = "steersman.envs.pde.burgers:BurgersTracking"

PLANTS: tuple[PlantSpec, ...] = (
    PlantSpec("Pendulum-v1", "steersman.envs.classic.pendulum:Pendulum", "torque-limited pendulum swing-up", 200),
    PlantSpec("CartPole-v1", "steersman.envs.classic.cart_pole:CartPole", "a pole balanced on a cart by pushes", 500),
    PlantSpec("Acrobot-v1", "steersman.envs.classic.acrobot:Acrobot", "two links swung up by their elbow", 500),
    PlantSpec(
        "MountainCarContinuous-v1",
        "steersman.envs.classic.mountain_car:MountainCarContinuous",
        "a weak car that must swing out of a valley",
        999,
    ),
    PlantSpec(
        "WolfSheep-v1", "steersman.envs.abm.wolf_sheep:WolfSheep", "predator-prey agents, removal of animals", 100
    ),
    PlantSpec(
        "WolfSheepSteady-v1",
        "steersman.envs.abm.wolf_sheep:WolfSheep",
        "the same with one target for the whole episode",
        100,
        {"switching": False},
    ),
    PlantSpec("SEIRNetwork-v1", "steersman.envs.abm.seir_network:SEIRNetwork", "epidemic on a network, distancing", 30),
    PlantSpec("CarT-v1", "steersman.envs.abm.car_t:CarT", "expansion of T cells, beads added or removed", 50),
    PlantSpec("Metabolic-v1", "steersman.envs.abm.metabolic:Metabolic", "pathway with feedback inhibition, inflow", 60),
    PlantSpec(
        "MetabolicSteady-v1",
        "steersman.envs.abm.metabolic:Metabolic",
        "the same with one demand for the whole episode",
        60,
        {"switching": False},
    ),
    PlantSpec("Sepsis-v1", "steersman.envs.abm.sepsis:Sepsis", "infection and inflammation, cytokine multipliers", 60),
    *versions("TwoArea", "steersman.envs.grid.tasks.two_area:TwoArea", "two-area grid, storage power", 100),
    *versions("TwoAreaBrake", "steersman.envs.grid.tasks.two_area:TwoAreaBrake", "two-area grid, dynamic brake", 100),
    PlantSpec(
        "PreventiveRedispatch-v1",
        "steersman.envs.grid.tasks.redispatch:PreventiveRedispatch",
        "storage against what a short circuit would do",
        12,
    ),
    *versions(
        "TwoAreaFull",
        "steersman.envs.grid.tasks.two_area_full:TwoAreaFull",
        "two areas, machines of full order, voltage references",
        100,
    ),
    *versions(
        "TwoAreaDamping",
        "steersman.envs.grid.tasks.two_area_full:TwoAreaDamping",
        "the swing between two areas, damped by voltage references",
        200,
    ),
    *versions(
        "TwoAreaFrequency",
        "steersman.envs.grid.tasks.two_area_full:TwoAreaFrequency",
        "frequency kept up by shedding blocks and storage",
        100,
        LOAD,
    ),
    PlantSpec(
        "TwoAreaBrakeFull-v1",
        "steersman.envs.grid.tasks.two_area_full:TwoAreaBrakeFull",
        "a dynamic brake after faults near the critical time",
        60,
    ),
    *versions("IEEE39", "steersman.envs.grid.tasks.ieee39:IEEE39", "New England system", 100),
    *versions(
        "TransportBoundary",
        "steersman.envs.pde.boundary:TransportBoundary",
        "unstable transport, controlled at its end",
        100,
        ORDER,
    ),
    PlantSpec(
        "TransportBoundaryCompat-v1",
        "steersman.envs.pde.boundary:TransportBoundaryCompat",
        "unstable transport with PDEControlGym's scheme and reward",
        50,
    ),
    PlantSpec(
        "ReactionDiffusion-v1",
        "steersman.envs.pde.boundary:ReactionDiffusion",
        "unstable reaction and diffusion, controlled at its end",
        100,
    ),
    PlantSpec(
        "ReactionDiffusionCompat-v1",
        "steersman.envs.pde.boundary:ReactionDiffusionCompat",
        "the same with PDEControlGym's scheme and reward",
        1000,
    ),
    PlantSpec(
        "BurgersOpenLoop-v1",
        "steersman.envs.pde.burgers:BurgersOpenLoop",
        "Burgers' equation to a profile at the end",
        10,
    ),
    PlantSpec(
        "BurgersOpenLoopPartial-v1",
        "steersman.envs.pde.burgers:BurgersOpenLoop",
        "the same, forced in the outer quarters",
        10,
        {"coverage": "FO-PC"},
    ),
    PlantSpec(
        "BurgersOpenLoopHidden-v1",
        "steersman.envs.pde.burgers:BurgersOpenLoop",
        "the same, forced and seen in the outer quarters",
        10,
        {"coverage": "PO-PC"},
    ),
    PlantSpec(
        "BurgersOpenLoopSafe-v1",
        "steersman.envs.pde.burgers:BurgersOpenLoop",
        "the same from and to profiles within 0.8, which are to stay there",
        10,
        {"safe": True},
    ),
    *versions("BurgersTracking", _TRACKING, "Burgers' equation along a moving profile", 80, ORDER, {"scheme": "heun"}),
    *versions(
        "BurgersTrackingNoisy", _TRACKING, "the same with process noise", 80, ORDER, {"scheme": "heun"}, noisy=True
    ),
    PlantSpec(
        "BurgersNotebookCompat-v1",
        "steersman.envs.pde.burgers:BurgersNotebookCompat",
        "controlgym's Burgers task, ten noisy sensors",
        100,
    ),
    PlantSpec(
        "BurgersNotebookBoundedCompat-v1",
        "steersman.envs.pde.burgers:BurgersNotebookCompat",
        "the same with bounded actions",
        100,
        {"bound": 2.0},
    ),
    PlantSpec(
        "ConvectionDiffusionReaction-v1",
        "steersman.envs.pde.linear:convection_diffusion_reaction",
        "two growing modes on a ring",
        100,
    ),
    PlantSpec("Heat-v1", "steersman.envs.pde.linear:heat", "heat on a ring to a profile", 100),
    PlantSpec("Wave-v1", "steersman.envs.pde.linear:Wave", "lightly damped waves on a ring", 200),
    PlantSpec(
        "KolmogorovFlow-v1",
        "steersman.envs.pde.kolmogorov:KolmogorovFlow",
        "two-dimensional turbulence, calmed by sixteen torques",
        100,
    ),
    PlantSpec("Smoke-v1", "steersman.envs.pde.smoke:Smoke", "smoke in a maze, drawn to an exit by fans outside", 32),
    PlantSpec(
        "Smoke128-v1",
        "steersman.envs.pde.smoke:Smoke",
        "the same maze on 128 x 128 cells",
        32,
        {"points": 128},
    ),
    PlantSpec(
        "RayleighBenard-v1",
        "steersman.envs.pde.rayleigh_benard:RayleighBenard",
        "convection between two plates, calmed by ten heaters",
        100,
    ),
    PlantSpec("CavityFlow-v1", "steersman.envs.pde.cavity:CavityFlow", "flow driven by a lid along a stored one", 199),
    PlantSpec(
        "KuramotoSivashinsky-v1",
        "steersman.envs.pde.kuramoto_sivashinsky:KuramotoSivashinsky",
        "chaos of a partial differential equation, 8 sensors and 8 actuators",
        400,
    ),
    PlantSpec(
        "KuramotoSivashinskyUnbounded-v1",
        "steersman.envs.pde.kuramoto_sivashinsky:KuramotoSivashinsky",
        "the same with unbounded actions",
        400,
        {"bound": None},
    ),
)


def plant_ids() -> list[str]:
    """Ids of all registered plants."""
    return [spec.id for spec in PLANTS]


def make_plant(id: str, **kwargs: Any) -> Plant:
    """Build a plant by its id or name; ``kwargs`` override the variant's arguments.

    Raises:
        ValueError: If no plant has that id; the message lists those that exist.
    """
    name = id.removeprefix("steersman.envs:").removeprefix(f"{NAMESPACE}/")
    for spec in PLANTS:
        if spec.name == name:
            module, _, attribute = spec.target.partition(":")
            plant = getattr(importlib.import_module(module), attribute)(**(spec.kwargs | kwargs))
            assert isinstance(plant, Plant)  # noqa: S101 - narrows the type
            return plant
    raise ValueError(f"unknown plant {missing(id, plant_ids())}")


def make_env(plant: str, render_mode: str | None = None, **kwargs: Any) -> PlantEnv:
    """Entry point of ``gymnasium.make``; ``plant`` is a name in the registry or ``module:name`` of your own."""
    if ":" in plant:
        return PlantEnv(make_simulator(plant, 1, **kwargs), render_mode)
    return PlantEnv(make_plant(plant, **kwargs), render_mode)


def make_vector_env(plant: str, num_envs: int = 1, **kwargs: Any) -> PlantVectorEnv:
    """Entry point of ``gymnasium.make_vec``; ``plant`` as for :func:`make_env`.

    ``device``, ``bank``, ``numpy`` and ``autoreset_mode`` go to
    :class:`~steersman.envs.gymnasium_adapters.vector.PlantVectorEnv`.

    Raises:
        ValueError: If ``max_episode_steps`` is not the plant's own.
    """
    steps = kwargs.pop("max_episode_steps", None)
    own = {
        name: kwargs.pop(name)
        for name in ("device", "bank", "render_mode", "numpy", "autoreset_mode")
        if name in kwargs
    }
    if ":" in plant:
        env = PlantVectorEnv(make_simulator(plant, num_envs, own.get("device", "cpu"), **kwargs), **own)
    else:
        env = PlantVectorEnv(make_plant(plant, **kwargs), num_envs, **own)
    # gymnasium hands on what its registry says, which a setting of the plant may have changed.
    usual = [spec.control_steps for spec in PLANTS if spec.name == plant]
    if steps not in (None, env.simulator.problem.horizon, *usual):
        raise ValueError(
            f"{plant} has episodes of {env.simulator.problem.horizon} control steps; leave out max_episode_steps"
        )
    return env


def make_simulator(
    id: str | Callable[..., Any],
    n: int,
    device: torch.device | str = "cpu",
    *,
    objective: Goal | None = None,
    price: float | None = None,
    reading: Reading | None = None,
    wrappers: Sequence[WrapperSettings] = (),
    max_episode_steps: int | None = None,
    workers: int = 0,
    **kwargs: Any,
) -> Simulator:
    """A simulator of a registered plant, of a plant or Mesa model of your own, or of any gymnasium environment.

    Args:
        id: Id of a plant; ``module:name`` of a Plant class, of a Simulator class (which is called with the number of
            rows, ``device``, ``price`` and the settings) or of a :class:`~steersman.envs.abm.mesa_task.MesaTask`
            (modules beside you are found); or a gymnasium
            environment as :func:`~steersman.envs.gymnasium_adapters.make.env_maker` takes it: an id, ``module:Env-v0``,
            ``module:name`` of a class or function, or such a class or function itself.
        n: Rows.
        device: Where a plant runs; Mesa models and gymnasium environments run on the CPU.
        objective: What planners minimise on a gymnasium environment; by default minus its reward.
        price: Price of a failure for what states none (:mod:`steersman.envs.failure`); found when it is needed.
        reading: Names, outputs and references of a gymnasium environment, and what its end means.
        wrappers: Wrappers around a gymnasium environment, the innermost first: name and arguments of each.
        max_episode_steps: Control steps of an episode of a gymnasium environment.
        workers: Processes that share the rows of a Mesa model or an environment; 0 runs them here.
        kwargs: Arguments of the plant or the environment.

    Raises:
        ValueError: If neither this registry nor gymnasium knows the id, or it does not take what is given.
        RuntimeError: If the device is not there.
    """
    return build_simulator(
        id, kwargs, n, device, objective=objective, price=price, reading=reading, wrappers=wrappers,
        max_episode_steps=max_episode_steps, workers=workers,
    )  # fmt: skip


def build_simulator(
    id: str | Callable[..., Any],
    settings: dict[str, Any],
    n: int,
    device: torch.device | str,
    *,
    objective: Goal | None,
    price: float | None,
    reading: Reading | None,
    wrappers: Sequence[WrapperSettings],
    max_episode_steps: int | None,
    workers: int,
) -> Simulator:
    """:func:`make_simulator`, with the arguments of the plant or environment in a dictionary, whatever their names."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device {str(device)!r} was asked for but CUDA is not available; use device='cpu'")
    foreign = {
        "objective": objective, "reading": reading, "wrappers": wrappers, "max_episode_steps": max_episode_steps
    }  # fmt: skip
    name = id.removeprefix("steersman.envs:") if isinstance(id, str) else ""
    found: Any = imported(name) if ":" in name else id
    if name.startswith(f"{NAMESPACE}/") or (isinstance(found, type) and issubclass(found, Plant)):
        _refuse(str(id), {**foreign, "workers": workers})
        plant = found(**settings) if isinstance(found, type) else make_plant(name, **settings)
        return PlantSimulator(plant, n, device=device, price=price)
    if isinstance(found, type) and issubclass(found, Simulator):
        given = {name: value for name, value in {**foreign, "workers": workers}.items() if value}
        _refuse(str(id), {name: value for name, value in given.items() if name not in signature(found).parameters})
        made: Simulator = cast(Any, found)(n, device=device, price=price, **given, **settings)
        return made
    if type(found).__name__ == "MesaTask":
        from steersman.envs.abm.mesa_simulator import MesaSimulator  # Mesa takes a second to import

        _refuse(str(id), foreign)
        return MesaSimulator(found, n, price=price, **{"workers": workers, **settings})
    try:
        make = env_maker(id, settings, wrappers, max_episode_steps)
    except ValueError as error:
        known = "" if ":" in name or not name else f"; known plants: {', '.join(plant_ids())}"
        raise ValueError(f"{error}{known}") from error
    return GymSimulator(make, n, objective=objective, price=price, reading=reading or Reading(), workers=workers)


def _refuse(name: str, given: dict[str, Any]) -> None:
    wrong = [what for what, value in given.items() if value]
    if wrong:
        raise ValueError(
            f"{name} says by itself what {', '.join(wrong)} would say of a gymnasium environment; leave it out"
        )


def register_envs() -> None:
    """Register every plant with gymnasium: one id, a single and a vector entry point. Idempotent."""
    for spec in PLANTS:
        if spec.id not in gymnasium.registry:
            gymnasium.register(
                spec.id,
                entry_point="steersman.envs.registry:make_env",
                vector_entry_point="steersman.envs.registry:make_vector_env",
                max_episode_steps=spec.control_steps,
                kwargs={"plant": spec.name},
            )
