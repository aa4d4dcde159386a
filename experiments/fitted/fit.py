"""Fit the models of a log, score them on what they have not seen, and keep each in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.dynamics.base import Dynamics, Trajectories
from steersman.dynamics.recorded.log import Recording
from steersman.dynamics.recorded.tables import files_behind
from steersman.dynamics.registry import model_spec
from steersman.dynamics.score import Score, score
from steersman.dynamics.windowed.windows import cut, lasting, starts, window_at
from steersman.experiments.comparison.machine import describe_machine
from steersman.experiments.exported.model import DESCRIPTION, SavedModel, load_model, save_model
from steersman.experiments.fitted.spec import FittedModel, FittingSpec
from steersman.experiments.spec.closure import code_digest, files_in
from steersman.experiments.spec.members import new_model

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted, or why it was not.

    Attributes:
        name: Its name in the table.
        saved: The model; None if the fit failed.
        score: Its predictions on the data that were held back.
        seconds: CPU seconds of the fit.
        failure: Why it failed; empty otherwise.
    """

    name: str
    saved: SavedModel | None
    score: Score | None
    seconds: float = 0.0
    failure: str = ""

    def relative(self, output: int) -> float:
        """Error of an output over all steps, relative to repeating its last value; NaN if the fit failed."""
        return float("nan") if self.score is None else float(self.score.relative_y[output])


@dataclass(frozen=True)
class Fitting:
    """All models of a log.

    Attributes:
        recording: The log.
        held_back: The data that none of the models was fitted to.
        models: The models.
        horizon: Steps ahead that they were scored at.
    """

    recording: Recording
    held_back: Trajectories
    models: tuple[Fitted, ...]
    horizon: int


def fit(spec: FittingSpec, out: Path, report: Report = lambda fraction, text: None) -> Fitting:
    """Fit what is not fitted yet.

    A model whose fit fails is reported as failed, and the others go on. A fit that was interrupted resumes, where the
    model can; one that is done is not done again, unless the log, its settings or its code have changed.

    Args:
        spec: Log, models and scores.
        out: Folder; each model gets one of its own in it.
        report: Called with a fraction in 0..1 and a short text.

    Raises:
        ValueError: If the log cannot be read, or holds too few steps to score a prediction.
    """
    report(0.0, "reading the log")
    recording = spec.log.read()
    train, test = divided(recording.data, spec.score.held_back)
    _require_scored(spec, test)
    found = []
    for i, entry in enumerate(spec.models):
        tell = partial(_tell, report, entry.name, i, len(spec.models))
        found.append(_fitted(spec, entry, recording, train, test, out / entry.name, tell))
    return Fitting(recording, test, tuple(found), spec.score.horizon)


def _tell(report: Report, name: str, done: int, whole: int, fraction: float, text: str) -> None:
    report((done + fraction) / whole, f"{name}: {text}")


def divided(data: Trajectories, share: float) -> tuple[Trajectories, Trajectories]:
    """Episodes to fit to, and a share of them at equal distances to score on; of a single episode, its end."""
    n, length = data.u.shape[:2]
    if n > 1:
        count = min(max(1, round(share * n)), n - 1)
        back = torch.zeros(n, dtype=torch.bool)
        back[((torch.arange(count) + 0.5) * n / count).long()] = True
        return data.index((~back).nonzero().flatten()), data.index(back.nonzero().flatten())
    cut = min(max(1, round((1 - share) * length)), length - 1)
    return data.entries(0, cut), data.entries(cut, length)


def _require_scored(spec: FittingSpec, test: Trajectories) -> None:
    try:
        starts(test.complete, 1, spec.score.horizon)
    except ValueError as error:
        raise ValueError(
            f"the data that are held back are too short for predictions of {spec.score.horizon} steps ({error}); lower "
            "score.horizon, or raise score.held_back"
        ) from error


def _fitted(
    spec: FittingSpec,
    entry: FittedModel,
    recording: Recording,
    train: Trajectories,
    test: Trajectories,
    folder: Path,
    report: Report,
) -> Fitted:
    key = _key(spec, entry)
    try:
        saved = _done(folder, key)
        if saved is None:
            saved = _anew(entry, key, recording, train, folder, report)
        report(0.9, "predicting what was held back")
        found = score(saved.model, test, spec.score.horizon)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return Fitted(entry.name, None, None, failure=str(error))
    return Fitted(entry.name, saved, found, float(saved.about["cpu_seconds"]))


def _done(folder: Path, key: str) -> SavedModel | None:
    if not (folder / DESCRIPTION).is_file():
        return None
    try:
        saved = load_model(folder)
    except (ValueError, KeyError, OSError):  # what was not written whole, or by another version, is made again
        return None
    return saved if saved.about.get("key") == key else None


def _anew(
    entry: FittedModel,
    key: str,
    recording: Recording,
    train: Trajectories,
    folder: Path,
    report: Report,
) -> SavedModel:
    began = time.process_time()
    model = new_model(entry.use, entry.settings, recording.problem)
    model.progress = lambda fraction, text: report(0.9 * fraction, text)
    model.checkpoint = folder / "training"
    report(0.0, "fitting")
    model.fit(train)
    about = {
        "key": key, "cpu_seconds": time.process_time() - began + model.earlier_seconds, "machine": describe_machine(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "steps": train.steps,
        "notes": [*recording.notes, *model.notes],
    }  # fmt: skip
    saved = SavedModel(entry.use, entry.settings, recording.problem, model, recording.data, about)
    save_model(saved, folder)
    return load_model(folder)


def _key(spec: FittingSpec, entry: FittedModel) -> str:
    """What a fit depends on: log, settings and code."""
    target = model_spec(entry.use).target.partition(":")[0]
    log = {**asdict(spec.log), "file": files_in(files_behind(spec.log.file))}
    parts = [log, spec.score.held_back, entry.use, entry.settings, code_digest([__name__, target])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def foretold(model: Dynamics, data: Trajectories, row: Int64[Tensor, "2"], horizon: int) -> Float[Tensor, "h ny"]:
    """The outputs that a model foretells after an episode and time of data, under the actions that were taken."""
    at = row[None]
    with torch.no_grad():
        start, U = model.init(window_at(data, at, model.context)), cut(data.u, at, 0, horizon)
        y, _ = model.rollout(start, U, lasting(data, at, horizon))
    return y[0]
