"""Jobs of a comparison: fitting a model, or training and evaluating a controller. One job, one process."""

from __future__ import annotations

import io
import json
import threading
import time
import traceback
from dataclasses import asdict
from functools import partial
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pydantic
import torch
from safetensors.torch import load_file, save_file

from steersman.controllers.base import Controller, Training, TrainingCost
from steersman.controllers.registry import controller_spec
from steersman.dynamics.base import Dynamics
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.registry import make_model, model_spec
from steersman.envs import noise
from steersman.envs.plant import Plant, Trail
from steersman.envs.registry import make_simulator
from steersman.envs.simulator import Simulator
from steersman.experiments.evaluate import Evaluation, Progress, evaluate, latency
from steersman.experiments.files import load_result, save_result
from steersman.experiments.results import RunResult
from steersman.experiments.settings import validated
from steersman.experiments.spec import FitSpec, PlantEntry, RunSpec
from steersman.experiments.store import LEASE_S, Job, Store

ERROR_LENGTH = 500
"""Longer messages are cut in the report; the whole traceback lies beside the result."""
COLLECT_ROWS = 32
"""Episodes that are collected in one batch."""


def fit_job(spec: FitSpec) -> Job:
    """The job of a fit."""
    return Job(spec.key, "fit", json.dumps(asdict(spec)))


def run_job(spec: RunSpec) -> Job:
    """The job of a run."""
    return Job(spec.key, "run", json.dumps(asdict(spec)))


def work(folder: Path, key: str) -> None:
    """Take the lease of a job, do it and mark it done or failed; returns at once if the lease is taken.

    An error of the job is a fact about its run: it is stored with it, and the other jobs go on.
    """
    torch.set_num_threads(1)
    store = Store(folder)
    if not store.claim(key):
        return
    job = store.get(key)
    with _Heartbeat(store, key):
        try:
            if job.kind == "fit":
                _fit(store, pydantic.TypeAdapter(FitSpec).validate_json(job.spec))
            else:
                _run(store, pydantic.TypeAdapter(RunSpec).validate_json(job.spec))
        except Exception as error:  # the boundary of a job: whatever it is, the comparison goes on and reports it
            store.file(key, ".error.txt").write_text(traceback.format_exc())
            store.finish(key, f"{type(error).__name__}: {error}"[:ERROR_LENGTH])
        else:
            store.finish(key)


def finished(store: Store, key: str, kind: str) -> bool:
    """Whether a job is done and its result can be read; a lost or damaged result lets the job wait again."""
    if store.get(key).state != "done":
        return False
    try:
        if kind == "fit":
            json.loads(store.file(key, ".json").read_text())
            load_file(str(store.file(key, ".safetensors")))
        else:
            load_result(store.file(key, ".npz"))
    except Exception:  # every way in which a file can be damaged means the same: do the job again
        store.reopen(key)
        return False
    return True


def simulator_of(spec: FitSpec | RunSpec, n: int) -> Simulator:
    """A simulator with ``n`` rows of the specified environment."""
    entry = PlantEntry(id=spec.plant, controllers=(), objective=spec.objective)
    return make_simulator(spec.plant, n, spec.device, objective=entry.built_objective(), **spec.plant_settings)


# ------------------------------------------------------------------ the two kinds of work


def _fit(store: Store, spec: FitSpec) -> None:
    start = time.process_time()
    report = _reporter(store, spec.key)
    entry = spec.model
    sim = simulator_of(spec, min(COLLECT_ROWS, entry.data.episodes))
    report(0.0, "collecting data")
    data = collect(
        sim, HeldLevels(entry.data.shortest, entry.data.longest, entry.data.share), episodes=entry.data.episodes,
        steps=entry.data.steps,
        seed=spec.seed, progress=lambda f, text: report(0.3 * f, f"collecting data: {text}"),
    )  # fmt: skip
    model = _build(entry.use, entry.settings, sim)
    model.progress = lambda f, text: report(0.3 + 0.7 * f, f"fitting: {text}")
    model.fit(data)
    draft = store.file(spec.key, ".draft.safetensors")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, str(draft))
    draft.replace(store.file(spec.key, ".safetensors"))
    cost = TrainingCost(data.steps, time.process_time() - start)
    store.file(spec.key, ".json").write_text(json.dumps(asdict(cost)))


def _run(store: Store, spec: RunSpec) -> None:
    report = _reporter(store, spec.key)
    model, fit_cost = _model(store, spec)
    controller = _controller(spec, model)
    folder = store.file(spec.key, ".training")
    training = Training(
        partial(simulator_of, spec), spec.seed, folder, lambda f, text: report(0.5 * f, f"training: {text}")
    )
    cost = controller.train(training)
    if state := controller.state_dict():
        save_file({name: t.contiguous() for name, t in state.items()}, str(store.file(spec.key, ".safetensors")))
    share = 0.5 if cost.plant_steps else 0.0
    key = noise.keys(spec.bank, spec.episodes)
    found = evaluate(
        controller, simulator_of(spec, spec.episodes), key, recorded=spec.recorded, preview=spec.controller.preview,
        progress=lambda f, text: report(share + (1 - share) * f, f"evaluating: {text}"),
    )  # fmt: skip
    result = _result(spec, controller, TrainingCost(
        cost.plant_steps + fit_cost.plant_steps, cost.cpu_seconds + fit_cost.cpu_seconds
    ), found)  # fmt: skip
    save_result(result, store.file(spec.key, ".npz"))


def _model(store: Store, spec: RunSpec) -> tuple[Dynamics | None, TrainingCost]:
    if spec.model is None:
        return None, TrainingCost()
    sim = simulator_of(spec, 1)
    model = _build(spec.model.use, spec.model.settings, sim)
    if spec.fit is None:
        return model, TrainingCost()
    job = store.get(spec.fit.key)
    if job.state != "done":
        raise RuntimeError(f"its model {spec.model.use!r} could not be fitted: {job.error or job.state}")
    model.load_state_dict(load_file(str(store.file(spec.fit.key, ".safetensors"))))
    return model, TrainingCost(**json.loads(store.file(spec.fit.key, ".json").read_text()))


def _build(use: str, settings: dict[str, object], sim: Simulator) -> Dynamics:
    checked = validated(model_spec(use).make, settings, f"model {use}")
    return make_model(use, sim.plant, **checked).bind(sim.problem)


def _controller(spec: RunSpec, model: Dynamics | None) -> Controller:
    kind = controller_spec(spec.controller.use).make
    controller = kind(**validated(kind, spec.controller.settings, f"controller {spec.controller.use}"))
    return controller.bind(simulator_of(spec, 1).problem, model)


def _result(spec: RunSpec, controller: Controller, cost: TrainingCost, found: Evaluation) -> RunResult:
    key = noise.keys(spec.bank, 1)
    arrays = {
        name: getattr(found, name).detach().cpu().numpy()
        for name in ("cost", "violation", "status", "steps", "outcomes")
    }
    return RunResult(
        key=spec.key, plant=spec.plant, controller=spec.controller.use,
        model="" if spec.model is None else spec.model.use, seed=spec.seed, track=controller.track,
        preview=controller.preview if spec.controller.preview else 0, scenario=np.arange(spec.episodes),
        inadmissible=found.inadmissible,
        latency=latency(controller, simulator_of(spec, 1), key, preview=spec.controller.preview),
        train_steps=cost.plant_steps, train_seconds=cost.cpu_seconds, eval_seconds=found.seconds,
        episodes=found.episodes, bank=found.bank, picture=_picture(spec, found.trail), **arrays,
    )  # fmt: skip


def _picture(spec: RunSpec, trail: Trail | None) -> bytes:
    """The plant's own picture as PNG; empty for environments and plants that draw none."""
    plant = simulator_of(spec, 1).plant
    if trail is None or plant is None or type(plant).render is Plant.render:
        return b""
    file = io.BytesIO()
    imageio.imwrite(file, plant.render(trail), extension=".png")
    return file.getvalue()


# ------------------------------------------------------------------ news of a job


def _reporter(store: Store, key: str) -> Progress:
    last = 0.0

    def report(fraction: float, message: str) -> None:
        nonlocal last
        if time.monotonic() - last > 0.3:
            last = time.monotonic()
            store.report(key, fraction, message)

    return report


class _Heartbeat:
    """Renews the lease of a job in the background while it is silent."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_S / 4):
            self._store.renew(self._key)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
