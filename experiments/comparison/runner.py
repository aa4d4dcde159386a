"""The work of a comparison, job by job: preparing a bank, fitting a model, training and evaluating a controller.

Everything here depends on its arguments only: where a job is kept and who does it is the affair of
:mod:`steersman.experiments.comparison.jobs`.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from steersman.controllers.base import Controller, Training, TrainingCost
from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.collect import Exciter, HeldLevels, collect
from steersman.dynamics.estimation.base import Windows
from steersman.envs import noise
from steersman.envs.failure import failure_price
from steersman.envs.gymnasium_adapters.agreement import EPISODES, agreement, in_words
from steersman.envs.plant import Plant, Trail
from steersman.envs.repeat import repeats
from steersman.envs.simulator import PlantSimulator, Simulator
from steersman.experiments.comparison.evaluate import Evaluation, Progress, evaluate, latency
from steersman.experiments.comparison.files import save_result
from steersman.experiments.comparison.results import RunResult
from steersman.experiments.spec.comparison import ControllerEntry, ModelEntry
from steersman.experiments.spec.members import new_controller, new_model
from steersman.experiments.spec.plan import BankSpec, FitSpec, JobSpec, RunSpec

PLANT_STEPS = 3
"""Control steps in which a plant must repeat."""
COLLECT_ROWS = 32
"""Episodes that are collected in one batch."""

Files = Callable[[JobSpec, str], Path]
"""Where a job's file with that ending lies."""


def work(spec: JobSpec, files: Files, report: Progress) -> None:
    """Do a job; its files are all that it leaves.

    Args:
        spec: What to do; what it needs must have been done.
        files: Where the files of this job and of those it needs lie.
        report: Called with a fraction in 0..1 and a short text.
    """
    if isinstance(spec, BankSpec):
        _prepare(spec, files, report)
    elif isinstance(spec, FitSpec):
        _fit(spec, files, report)
    elif isinstance(spec, RunSpec):
        _run(spec, files, report)
    else:
        raise TypeError(f"no work is known for a {type(spec).__name__}")


def _prepare(spec: BankSpec, files: Files, report: Progress) -> None:
    simulate = partial(spec.environment.simulator, device=spec.device, price=0.0)
    first = simulate(1)
    report(0.0, "running a scenario twice")
    # Plants are pure functions, which a few steps tell; what others keep to themselves may show late.
    steps = first.problem.horizon if first.plant is None else PLANT_STEPS
    again = repeats(partial(spec.environment.simulator, price=0.0), noise.keys(spec.bank, 2), steps)
    if again is not None:
        raise RuntimeError(f"nothing can be paired on it: {again}")
    report(0.3, "finding what a failure costs")
    price = failure_price(simulate, spec.bank)
    notes = []
    if spec.environment.objective and first.rewards:
        report(0.7, "comparing the objective with the reward")
        notes.append(in_words(agreement(simulate(EPISODES), spec.bank)))
    files(spec, ".json").write_text(json.dumps({"price": price, "notes": notes}), encoding="utf-8")


def prepared(spec: BankSpec, files: Files) -> tuple[float, list[str]]:
    """Price of a failure on a bank, and remarks for the report."""
    found = json.loads(files(spec, ".json").read_text(encoding="utf-8"))
    return float(found["price"]), list(found["notes"])


def _fit(spec: FitSpec, files: Files, report: Progress) -> None:
    start = time.process_time()
    entry = spec.model
    # Data hold outputs and actions, not costs: no price is needed.
    sim = spec.environment.simulator(min(COLLECT_ROWS, entry.data.episodes), spec.device, price=0.0)
    report(0.0, "collecting data")
    data = collect(
        sim, _exciter(entry)(), episodes=entry.data.episodes, steps=entry.data.steps, seed=spec.seed,
        sensing=entry.data.sensing, progress=lambda f, text: report(0.3 * f, f"collecting data: {text}"),
    )  # fmt: skip
    model = build_model(entry.use, entry.settings, sim)
    model.progress = lambda f, text: report(0.3 + 0.7 * f, f"fitting: {text}")
    model.checkpoint = files(spec, ".training")
    model.fit(data)
    draft = files(spec, ".draft.safetensors")
    save_file(_on_cpu(model.state_dict()), str(draft))
    if ":" in entry.use:
        _require_kept(model, build_model(entry.use, entry.settings, sim), load_file(str(draft)), sim)
    draft.replace(files(spec, ".safetensors"))
    data.save(files(spec, ".data.safetensors"))
    cost = {"plant_steps": data.steps, "cpu_seconds": time.process_time() - start + model.earlier_seconds}
    files(spec, ".json").write_text(json.dumps({"cost": cost, "notes": sim.notes}))


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _require_kept(fitted: Dynamics, fresh: Dynamics, state: dict[str, Tensor], sim: Simulator) -> None:
    """Refuse a model of somebody else's that predicts something else, or nothing, after it was saved.

    Raises:
        RuntimeError: With the remedy.
    """
    remedy = "name the tensors that fit learns with an underscore at the end (self.weights_), so that they are kept"
    sim.reset(sim.scenarios(noise.keys(0, sim.n)))
    window = Windows(fitted.to(sim.device).context).push(sim.measure())
    U = sim.actions.neutral(sim.n, sim.perform())[:, None]
    before, _ = fitted.rollout(fitted.init(window), U)
    try:
        fresh.load_state_dict(state)
        fresh.to(sim.device)
        after, _ = fresh.rollout(fresh.init(window), U)
    except Exception as error:
        raise RuntimeError(
            f"the fitted model cannot be restored ({type(error).__name__}: {error}); {remedy}"
        ) from error
    if not torch.allclose(before, after, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise RuntimeError(f"the model predicts something else after it was saved; {remedy}")


def _exciter(entry: ModelEntry) -> Callable[[], Exciter]:
    return partial(HeldLevels, entry.data.shortest, entry.data.longest, entry.data.share)


def _run(spec: RunSpec, files: Files, report: Progress) -> None:
    price, _ = prepared(spec.prepared, files)
    simulate = partial(spec.environment.simulator, device=spec.device, price=price)
    model, fit_cost, fit_notes = _model(spec, files)
    controller = _controller(spec, model, simulate).to(spec.device)
    practice = _Noted(simulate)
    training = Training(
        practice, spec.seed, files(spec, ".training"), lambda f, text: report(0.5 * f, f"training: {text}"),
        excite=HeldLevels if spec.model is None else _exciter(spec.model),
        data=None if spec.fit is None else Trajectories.load(files(spec.fit, ".data.safetensors")).to(spec.device),
        note=practice.note, device=spec.device,
    )  # fmt: skip
    cost = controller.train(training)
    if not isinstance(cost, TrainingCost):
        raise TypeError(f"{spec.controller.use}: train must return a TrainingCost, got {type(cost).__name__}")
    controller.to(spec.device)  # what training has made anew
    if state := controller.state_dict():
        save_file(_on_cpu(state), str(files(spec, ".safetensors")))
    share = 0.5 if cost.plant_steps else 0.0
    found = evaluate(
        controller, simulate(spec.episodes), noise.keys(spec.bank, spec.episodes), recorded=spec.recorded,
        preview=spec.controller.preview,
        progress=lambda f, text: report(share + (1 - share) * f, f"evaluating: {text}"),
    )  # fmt: skip
    before = fit_cost.plant_steps
    curve = tuple((before + steps, value) for steps, value in cost.curve)
    total = TrainingCost(before + cost.plant_steps, cost.cpu_seconds + fit_cost.cpu_seconds, curve)
    notes = (
        *(("resumed",) if controller.resumed else ()),
        *(f"in the data of its model, {note}" for note in fit_notes),
        *(controller.model.notes if controller.model is not None else ()),
        *(f"in its training, {note}" for note in practice.notes),
        *found.notes,
        *controller.notes,
    )
    save_result(_result(spec, controller, simulate, price, total, found, notes), files(spec, ".npz"))


class _Noted:
    """Makes simulators, keeps those that may have something to say when their episodes are over, and hears others."""

    def __init__(self, make: Callable[[int], Simulator]) -> None:
        self._make = make
        self._made: list[Simulator] = []
        self._heard: list[str] = []

    def __call__(self, n: int) -> Simulator:
        simulator = self._make(n)
        if simulator.plant is None:  # plants say nothing, and would only take memory
            self._made.append(simulator)
        return simulator

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_made": [], "_heard": []}  # searches send it to processes of their own

    def note(self, text: str) -> None:
        """Take a remark of a simulator in another process."""
        self._heard.append(text)

    @property
    def notes(self) -> tuple[str, ...]:
        made = (note for simulator in self._made for note in simulator.notes)
        return tuple(dict.fromkeys((*made, *self._heard)))


def _model(spec: RunSpec, files: Files) -> tuple[Dynamics | None, TrainingCost, list[str]]:
    """The model, what fitting it has cost, and remarks on its data."""
    if spec.model is None:
        return None, TrainingCost(), []
    model = build_model(spec.model.use, spec.model.settings, spec.environment.simulator(1, spec.device))
    if spec.fit is None:
        return model, TrainingCost(), []
    model.load_state_dict(load_file(str(files(spec.fit, ".safetensors"))))
    found = json.loads(files(spec.fit, ".json").read_text())
    return model, TrainingCost(**found["cost"]), found["notes"]


def build_model(use: str, settings: dict[str, Any], sim: Simulator) -> Dynamics:
    """A model of that name, bound to what a simulator runs and not yet fitted.

    Raises:
        ValueError: If a setting is wrong, or the model needs a plant and there is none.
    """
    return new_model(use, settings, sim.problem, sim.plant)


def restored(spec: RunSpec, files: Files) -> Controller:
    """The controller of a finished run, as it was evaluated."""
    price, _ = prepared(spec.prepared, files)
    model, _, _ = _model(spec, files)
    controller = _controller(spec, model, partial(spec.environment.simulator, device=spec.device, price=price))
    if (weights := files(spec, ".safetensors")).is_file():
        controller.load_state_dict(load_file(str(weights)))
    return controller.to(spec.device)


def _controller(spec: RunSpec, model: Dynamics | None, simulate: Callable[[int], Simulator]) -> Controller:
    return build_controller(spec.controller).bind(simulate(1).problem, model)


def build_controller(entry: ControllerEntry) -> Controller:
    """The controller of an entry, not yet bound.

    Raises:
        ValueError: If a setting is wrong.
    """
    return new_controller(entry.use, entry.settings)


def _result(
    spec: RunSpec,
    controller: Controller,
    simulate: Callable[[int], Simulator],
    price: float,
    cost: TrainingCost,
    found: Evaluation,
    notes: tuple[str, ...],
) -> RunResult:
    arrays = {
        name: getattr(found, name).detach().cpu().numpy()
        for name in ("cost", "violation", "status", "steps", "outcomes")
    }
    return RunResult(
        key=spec.key, plant=spec.environment.id, controller=spec.controller.use,
        model="" if spec.model is None else spec.model.use, seed=spec.seed, track=controller.track,
        preview=controller.preview if spec.controller.preview else 0, scenario=np.arange(spec.episodes),
        inadmissible=found.inadmissible,
        latency=latency(controller, simulate(1), noise.keys(spec.bank, 1), preview=spec.controller.preview),
        train_steps=cost.plant_steps, train_seconds=cost.cpu_seconds, eval_seconds=found.seconds,
        episodes=found.episodes, bank=found.bank, picture=_picture(simulate(1), found.trail), price=price,
        notes=notes, curve=cost.curve, versions=_versions(), **arrays,
    )  # fmt: skip


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "scipy", "gymnasium", "mesa", "stable-baselines3", "highspy", "steersman")
    return {name: metadata.version(name) for name in names}


def _picture(sim: Simulator, trail: Trail | None) -> bytes:
    """The plant's own picture as PNG; empty for environments and plants that draw none."""
    if trail is None or not isinstance(sim, PlantSimulator) or type(sim.plant).render is Plant.render:
        return b""
    file = io.BytesIO()
    Image.fromarray(sim.plant.render(trail)).save(file, "PNG")
    return file.getvalue()
