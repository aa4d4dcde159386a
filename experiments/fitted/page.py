"""What a fitting shows: a table of errors, and recorded outputs beside predicted ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from rich import box
from rich.table import Table

from steersman.dynamics.recorded.log import Recording
from steersman.dynamics.windowed.windows import cut, starts
from steersman.experiments.fitted.fit import Fitted, Fitting, foretold
from steersman.experiments.report.texts import number

_SHOWN = 6
"""Outputs that are drawn."""


def table(fitting: Fitting) -> Table:
    """Errors of each model over all steps ahead, relative to repeating the last value: 1 is no better than that."""
    kept = _kept(fitting.recording)
    names = fitting.recording.problem.measured
    found = Table(
        title=f"errors of predictions of {fitting.horizon} steps, relative to repeating the last value",
        title_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    found.add_column("model")
    for i in kept:
        found.add_column(names[i], justify="right")
    found.add_column("CPU s", justify="right")
    for model in fitting.models:
        cells = [number(model.relative(i)) for i in kept] if not model.failure else [f"failed: {model.failure}"]
        found.add_row(model.name, *cells, *["" for _ in range(len(kept) - len(cells))], number(model.seconds))
    return found


def best(fitting: Fitting) -> Fitted | None:
    """The model with the least mean error over the outputs that actions influence; None if every fit failed."""
    fitted = [model for model in fitting.models if model.score is not None]

    def error(model: Fitted) -> float:
        found = [model.relative(i) for i in _kept(fitting.recording)]
        moving = [value for value in found if math.isfinite(value)]  # of what never moves, the last value is perfect
        return sum(moving) / len(moving) if moving else math.inf

    return min(fitted, key=error, default=None)


def write(fitting: Fitting, out: Path) -> Path | None:
    """``fit.json`` and, if a fit succeeded, ``fit.png``; the path of the picture."""
    names = fitting.recording.problem.measured
    models = {
        model.name: {
            "failure": model.failure,
            "cpu_seconds": model.seconds,
            "relative_error": {names[i]: _finite(model.relative(i)) for i in _kept(fitting.recording)},
            "rms_error": {name: model.score.y[:, i].tolist() for i, name in enumerate(names)} if model.score else {},
            "notes": [] if model.saved is None else list(model.saved.model.notes),
        }
        for model in fitting.models
    }
    plain = {
        "log": {"steps": fitting.recording.data.steps, "notes": list(fitting.recording.notes)},
        "held_back": fitting.held_back.steps, "horizon": fitting.horizon, "models": models,
    }  # fmt: skip
    (out / "fit.json").write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "fit.png").unlink(missing_ok=True)
    return _draw(fitting, out / "fit.png") if best(fitting) is not None else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _draw(fitting: Fitting, path: Path) -> Path:
    kept = _kept(fitting.recording)[:_SHOWN]
    figure, axes = plt.subplots(len(kept), 2, figsize=(11, 2.4 * len(kept)), squeeze=False, layout="constrained")
    for (left, right), i in zip(axes, kept, strict=True):
        _draw_one(fitting, i, left)
        _draw_errors(fitting, i, right)
        left.set_ylabel(fitting.recording.problem.measured[i])
        right.set_ylabel("root mean square error")
    for axis in axes.flat:
        axis.legend(fontsize=7)
    for axis, what in zip(axes[-1], ("time", "time ahead"), strict=True):
        axis.set_xlabel(f"{what}, {fitting.recording.problem.time_unit}")
    figure.suptitle("predictions of what was held back: one of them, and the errors of all", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _draw_one(fitting: Fitting, output: int, axis: Axes) -> None:
    """An output as it was recorded, and as each model foretells it from one place on."""
    data, horizon = fitting.held_back, fitting.horizon
    models = {model.name: model.saved.model for model in fitting.models if model.saved is not None}
    row = starts(data.complete, max((model.context for model in models.values()), default=1), horizon)[0]
    t = cut(data.t[..., None], row[None], 0, horizon + 1)[0, :, 0]
    recorded = cut(data.y, row[None], 0, horizon + 1)[0, :, output]
    for name, model in models.items():
        axis.plot(t[1:], foretold(model, data, row, horizon)[:, output], label=name)
    axis.plot(t, recorded, color="black", linewidth=1, label="recorded")


def _draw_errors(fitting: Fitting, output: int, axis: Axes) -> None:
    """Errors of an output by the time ahead."""
    t = fitting.held_back.period * np.arange(1, fitting.horizon + 1)
    scores = {model.name: model.score for model in fitting.models if model.score is not None}
    for name, score in scores.items():
        axis.plot(t, score.y[:, output], label=name)
    for score in list(scores.values())[:1]:
        axis.plot(t, score.y_persistence[:, output], color="gray", linestyle=":", label="last value")


def _kept(recording: Recording) -> list[int]:
    """Outputs that actions influence."""
    return [i for i in range(recording.problem.ny) if i not in recording.problem.exogenous]
