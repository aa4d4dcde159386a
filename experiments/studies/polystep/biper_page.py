"""Page and plot of the study of periodic binary weights, from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import stats

NETWORKS = {
    "dense": "64-64-10", "convolutional": "3 x 3 filters 1-8-16, the second layer with stride 2, then 256-10",
}  # fmt: skip
LEVEL = 0.5 - 4 / np.pi**2
"""Error of the sine of uniform phases, the limit of high frequencies."""

Rows = Sequence[dict[str, Any]]


def rows_of(whole: dict[str, Any], network: str, frequency: float | None = None, method: str = "gradient") -> Rows:
    """Runs of a network, in the order of seeds."""
    found = [r for r in whole["runs"] if (r["network"], r["method"]) == (network, method)]
    return sorted((r for r in found if frequency in (None, r["frequency"])), key=lambda r: (r["frequency"], r["seed"]))


def frequencies(whole: dict[str, Any], network: str) -> list[float]:
    """Those of the sine that were run."""
    return sorted({row["frequency"] for row in rows_of(whole, network)} - {0.0})


def gain(whole: dict[str, Any], network: str, frequency: float) -> tuple[float, float, float]:
    """Mean paired difference of accuracy to straight-through, in points, and its interval.

    The intervals of all frequencies of a network hold together with 95 % (Bonferroni, Student's t over seeds).
    """
    pairs = zip(rows_of(whole, network, frequency), rows_of(whole, network, 0.0), strict=True)
    differences = np.array([100 * (a["test"] - b["test"]) for a, b in pairs])
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return mean, -np.inf, np.inf
    quantile = float(stats.t.ppf(1 - 0.025 / len(frequencies(whole, network)), count - 1))
    reach = quantile * float(differences.std(ddof=1)) / np.sqrt(count)
    return mean, mean - reach, mean + reach


def page(whole: dict[str, Any]) -> str:
    """The study's text, computed from its numbers."""
    train, validate, test = whole["images"]
    lines = [
        "# biper", "", f"`{whole['command']}`", "", whole["machine"], "",
        "Binary weights as the sign of a sine of latent weights, trained through its cosine (BiPer, CVPR 2024), "
        "against the sign of the weight itself with the straight-through estimator. Hidden activations have one bit in "
        f"all networks. {train:,} / {validate} / {test} digits of 8 x 8 pixels for training, for the choice between "
        f"learning rates {_list(whole['rates'])}, and for the test; Adam, {whole['steps']:,} steps of {whole['batch']} "
        f"images, seeds {_list(whole['seeds'])}. Runs of one seed share their latent weights and mini-batches, so "
        "differences are paired. Error: mean squared error of the wave (at frequency 0 of the weight) by its bits and "
        "one factor for each layer, over all weights; relative: over the wave's mean square. Expected: of the initial "
        "law, by the Fourier series of |sin|.",
        "", *(f"- {claim}" for claim in claims(whole)), "",
        "Published: up to 1 % on CIFAR-10 and 0.69 % on ImageNet ahead of the best rivals, with networks, images and "
        "trainings of another size; this is no reproduction of those.", "",
    ]  # fmt: skip
    for network, layers in NETWORKS.items():
        if rows_of(whole, network):
            lines += [*_section(whole, network, layers), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(whole: dict[str, Any], network: str, layers: str) -> list[str]:
    lines = [
        f"## {network.capitalize()}, {layers}", "",
        "| training | frequency | test, % | to straight-through, points | expected error | before | after | "
        "relative before | relative after |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for frequency in (0.0, *frequencies(whole, network)):
        rows = rows_of(whole, network, frequency)
        values = {name: float(np.mean([row[name] for row in rows])) for name in _ERRORS}
        cells = [f"{values[name]:.4f}" for name in _ERRORS[:3]] + [f"{values[name]:.2f}" for name in _ERRORS[3:]]
        name, against = (
            ("periodic", _interval(gain(whole, network, frequency))) if frequency else ("straight-through", "")
        )
        lines.append(f"| {name} | {frequency:g} | {_percent(rows)} | {against} | {' | '.join(cells)} |")
    for row in rows_of(whole, network, method="frame_step")[:1]:
        searched = rows_of(whole, network, method="frame_step")
        lines.append(
            f"| frame_step, {whole['evaluations']:,} evaluations | {row['frequency']:g} | {_percent(searched)} | "
            "| | | | | |"
        )
    return lines


_ERRORS = ("expected", "start", "error", "relative_start", "relative")


def claims(whole: dict[str, Any]) -> list[str]:
    """What the numbers say about error and accuracy, those against BiPer included."""
    lines = []
    for network in NETWORKS:
        if not rows_of(whole, network):
            continue
        tried = frequencies(whole, network)
        by = {name: {f: _mean(rows_of(whole, network, f), name) for f in tried} for name in _ERRORS}
        off = max(abs(by["start"][f] - by["expected"][f]) for f in tried)
        peak = max(tried, key=lambda f: by["error"][f])
        lines.append(
            f"{network.capitalize()}, error: before training as expected within {off:.4f}; it rises from "
            f"{by['start'][tried[0]]:.4f} at {tried[0]:g} to {by['start'][tried[-1]]:.4f} at {tried[-1]:g}, where the "
            f"phases are even ({LEVEL:.4f}). After training it is largest at {peak:g}, {by['error'][peak]:.3f}, and "
            f"{by['error'][tried[-1]]:.3f} at {tried[-1]:g}: of the mean square it goes from "
            f"{by['relative'][tried[0]]:.2f} at {tried[0]:g} to {by['relative'][tried[-1]]:.2f}. The frequency sets "
            "the error at the start; after training it only bends it."
        )
        lines.append(_accuracy(whole, network, tried))
    return lines


def _accuracy(whole: dict[str, Any], network: str, tried: Sequence[float]) -> str:
    found = {f: gain(whole, network, f) for f in tried}
    better = [f"{f:g}" for f, (_, low, _) in found.items() if low > 0]
    worse = [f"{f:g}" for f, (_, _, high) in found.items() if high < 0]
    best = max(tried, key=lambda f: found[f][0])
    said = [f"better at {', '.join(better)}"] if better else []
    said += [f"worse at {', '.join(worse)}"] if worse else []
    verdict = f"periodic weights are {' and '.join(said)}" if said else "no frequency differs from straight-through"
    return (
        f"{network.capitalize()}, accuracy: straight-through reaches {_percent(rows_of(whole, network, 0.0))} %; the "
        f"best frequency, {best:g}, gains {_interval(found[best])} points. By intervals that hold together for the "
        f"{len(tried)} frequencies with 95 %, {verdict}."
    )


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _percent(rows: Rows) -> str:
    values = np.array([100 * row["test"] for row in rows])
    return f"{values.mean():.1f}" + (f" +- {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:+.2f} ({found[1]:+.2f} to {found[2]:+.2f})"


def _list(values: Sequence[int] | Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def plot(whole: dict[str, Any], path: Path) -> None:
    """Accuracy and weight error by frequency, a row for each network."""
    shown = [network for network in NETWORKS if rows_of(whole, network)]
    figure, panels = plt.subplots(len(shown), 2, figsize=(10, 3.4 * len(shown)), squeeze=False)
    for (left, right), network in zip(panels, shown, strict=True):
        _accuracies(left, whole, network)
        _error_panel(right, whole, network)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _accuracies(axes: Axes, whole: dict[str, Any], network: str) -> None:
    tried = (0.0, *frequencies(whole, network))
    for place, frequency in enumerate(tried):
        values = [100 * row["test"] for row in rows_of(whole, network, frequency)]
        axes.plot([place] * len(values), values, "o", color="#55a868", ms=5, alpha=0.6)
        axes.plot(place, float(np.mean(values)), "_", color="#1b5e20", ms=18, mew=2)
    axes.set_xticks(range(len(tried)), ["straight-\nthrough", *(f"{f:g}" for f in tried[1:])], fontsize=9)
    axes.set_xlabel("frequency of the sine")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{network}: accuracy, seeds and mean", fontsize=11)
    _tidy(axes)


def _error_panel(axes: Axes, whole: dict[str, Any], network: str) -> None:
    tried = frequencies(whole, network)
    for name, style, tint, label in (
        ("expected", "-", "0.5", "expected before"), ("start", "o", "#4c72b0", "before training"),
        ("error", "o", "#c44e52", "after training"),
    ):  # fmt: skip
        rows = [row for row in rows_of(whole, network) if row["frequency"]]
        if style == "-":
            axes.semilogx(tried, [_mean(rows_of(whole, network, f), name) for f in tried], "-", color=tint, label=label)
        else:
            axes.semilogx([r["frequency"] for r in rows], [r[name] for r in rows], "o", color=tint, ms=4, label=label)
    axes.axhline(LEVEL, color="0.7", lw=0.8, ls=":")
    axes.set_xticks(tried, [f"{f:g}" for f in tried])
    axes.minorticks_off()
    axes.set_xlabel("frequency of the sine")
    axes.set_ylabel("mean squared error of the wave")
    axes.set_title(f"{network}: weight error", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
