"""The outcome of a comparison for programs: JSON and parquet."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steersman.envs.importing import needed
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.report.lines import outcomes
from steersman.experiments.statistics.evidence import Interval
from steersman.experiments.statistics.paired import Difference
from steersman.experiments.statistics.ranking import ranking, regret, regret_scenarios
from steersman.experiments.statistics.scores import Score, per_seed, scores


def to_json(comparison: Comparison) -> str:
    """Scores of all controllers with the cost of every scenario; numbers that do not exist are null."""
    found = scores(comparison)
    baselines = {plant.name: plant.baseline for plant in comparison.plants}
    rows = [_plain(score, found, baselines[score.plant]) for score in found]
    duels = []
    for plant in comparison.plants:
        ranks = ranking([s for s in found if s.plant == plant.name])
        if ranks.duel is not None:
            names = {"best": ranks.order[0].controller, "second": ranks.order[1].controller}
            duels.append({"plant": plant.name, **names, **_compared(ranks.duel)})
    whole = {
        "name": comparison.name, "baseline": comparison.baseline, "baselines": baselines,
        "command": comparison.command, "machine": comparison.machine, "notes": list(comparison.notes),
        "scores": rows, "best_against_second": duels,
        "failures": [
            {"plant": f.plant, "controller": f.controller, "seed": f.seed, "error": f.error}
            for f in comparison.failures
        ],
    }  # fmt: skip
    return _flat(json.dumps(_clean(whole), indent=2, allow_nan=False))


def write_parquet(comparison: Comparison, path: Path) -> None:
    """One row per plant, controller, training seed and scenario.

    Raises:
        ImportError: Without pyarrow; the message names the extra.
    """
    arrow = needed("pyarrow", "report", "a parquet file")
    parquet = needed("pyarrow.parquet", "report", "a parquet file")
    parquet.write_table(arrow.table(comparison.columns()), path)


def _plain(score: Score, found: Sequence[Score], baseline: str) -> dict[str, Any]:
    """A row of the JSON."""
    d, mean, runs = score.difference, score.over_runs, score.runs
    base = next((s for s in found if s.plant == score.plant and s.controller == baseline), None)
    return {
        "plant": score.plant, "controller": score.controller, "model": runs[0].model, "track": score.track,
        "preview": runs[0].preview, "scenarios": len(score.scenario), "seeds": len(runs),
        "seeds_finished": f"{len(runs)} of {score.asked}", "cost": score.mean, "iqm": score.iqm,
        "interval": _ends(score.interval), **_compared(d), "about": score.about,
        "regret": regret(score, found, baseline), "regret_scenarios": regret_scenarios(score, found, baseline),
        "failures": mean(lambda r: r.failures), "fallbacks": mean(lambda r: float(np.mean(r.fallbacks))),
        "outcomes": outcomes(score), "inadmissible": sum(r.inadmissible for r in runs),
        "decision_s": [mean(lambda r: r.latency.p50), mean(lambda r: r.latency.p95), mean(lambda r: r.latency.max)],
        "train_steps": mean(lambda r: r.train_steps), "train_seconds": mean(lambda r: r.train_seconds),
        "price": [r.price for r in runs],
        "per_seed": [
            {"seed": s.runs[0].seed, "cost": s.mean, **_compared(s.difference), "failures": s.runs[0].failures,
             "notes": list(s.runs[0].notes), "curve": list(map(list, s.runs[0].curve))}
            for s in per_seed(score, base)
        ],
        "scenario": score.scenario.tolist(),
        "costs": [[_short(v) for v in row] for row in score.costs(score.scenario).tolist()],
        "failed": [score.scenario[row].tolist() for row in score.failed(score.scenario)],
    }  # fmt: skip


def _compared(d: Difference | None) -> dict[str, Any]:
    if d is None:
        names = (
            "difference",
            "difference_interval",
            "level",
            "p",
            "gain",
            "gain_interval",
            "wins",
            "verdict",
            "beats",
            "open",
        )
        return dict.fromkeys((*names, "pairs"))
    return {
        "difference": d.mean, "difference_interval": _ends(d.interval), "level": d.level, "p": d.p, "gain": d.gain,
        "gain_interval": _ends(d.gain_interval), "wins": d.wins, "verdict": d.verdict, "beats": d.beats, "open": d.open,
        "pairs": d.pairs,
    }  # fmt: skip


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _short(value: float) -> float:
    """Nine digits, which tell apart what the statistics tell apart."""
    return float(f"{value:.9g}")


def _flat(text: str) -> str:
    """The same JSON with lists of plain values on one line each."""
    return re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda m: "[" + re.sub(r",\n\s+", ", ", m[1]) + "]", text)


def _clean(value: Any) -> Any:
    """Replace numbers that JSON does not know by null."""
    if isinstance(value, dict):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_clean(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
