"""A linear system as a plant: matrices, a transfer function, or what python-control holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.importing import needed
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.envs.settings import at_least, positive
from steersman.envs.tree import Params, State, tree_leaves


class LinearSystem(Plant):
    """``x+ = A x + B u``, ``y = C x``; a continuous system ``x' = A x + B u`` is sampled exactly, its action held.

    Sampling is ``exp([[A, B], [0, 0]] period)`` (Van Loan, IEEE Trans. Automatic Control 23, 1978). A system
    ``y = C x + D u`` is measured just before the next action, when ``u`` is still the last one; the state then ends in
    it. All outputs are measured, and the objective is written in them. An episode begins with a state drawn uniformly
    within ``spread`` of ``start``. Cost of a control step: ``sum_i weights_i (y_i - reference_i)^2 + effort |u|^2``.

    State ``[n, ns]``, in the coordinates of the system. Gradients are exact.
    """

    def __init__(
        self,
        system: Any,
        lower: Sequence[float],
        upper: Sequence[float],
        period: float | None = None,
        horizon: int = 100,
        weights: Sequence[float] | None = None,
        effort: float = 0.01,
        reference: Sequence[float] | None = None,
        start: Sequence[float] | None = None,
        spread: float = 1.0,
        time_unit: str = "s",
    ) -> None:
        """Sample the system.

        Args:
            system: A ``StateSpace`` or ``TransferFunction`` of python-control; or a table with ``A``, ``B``, ``C`` and,
                if wanted, ``D`` and ``dt``; or one with ``numerator``, ``denominator`` and, if wanted, ``dt``, which is
                0 for continuous systems (the default in a table) and the period of discrete ones.
            lower: Least value of each action.
            upper: Largest value of each action.
            period: Control period; needed for continuous systems, otherwise that of the system.
            horizon: Control steps of an episode.
            weights: Cost of the squared error of each output; by default 1.
            effort: Cost of the squared actions.
            reference: Reference of each output; by default 0.
            start: State around which episodes begin; by default 0.
            spread: Largest distance of each entry of the first state from ``start``.
            time_unit: Unit of the period.

        Raises:
            ValueError: If the matrices do not fit or are not finite, a number is out of range, the period is missing or
                is not that of a discrete system, or a discrete system has a direct feedthrough.
            ImportError: If a transfer function is given and python-control is not installed.
        """
        at_least(1, horizon=horizon)
        at_least(0, effort=effort, spread=spread)
        A, B, C, D, dt, names = _matrices(system)
        self.dt, self.hold, self.horizon, self.gradient = _period(dt, period), 1, horizon, "exact"
        if D.any() and dt != 0:
            raise ValueError(
                "system: D must be zero where the system is discrete, as an output is measured before the action of "
                "its step; delay the output or the action by one step"
            )
        step = _sampled(A, B, self.dt) if dt == 0 else np.hstack([A, B])
        if not np.isfinite(step).all():
            raise ValueError(f"period: the system grows beyond all numbers within a period of {self.dt:g}")
        self._map, self._readout = (torch.tensor(part) for part in _with_feedthrough(step, C, D))
        m, ny = B.shape[1], len(C)
        self.actions = ActionSet(_entries("lower", lower, m), _entries("upper", upper, m), names=names[0])
        self.measured = self.performed = names[1]
        self.objective = Objective((
            Quadratic(name="tracking", on="e", weights=_entries("weights", weights, ny, 1.0)),
            Quadratic(name="effort", on="u", weights=(float(effort),) * m),
        ))  # fmt: skip
        self._reference = torch.tensor(_entries("reference", reference, ny, 0.0), dtype=self.dtype)
        self._start = torch.tensor(_entries("start", start, len(A), 0.0), dtype=self.dtype)
        self._spread, self.time_unit = spread, time_unit

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """A state near ``start``; the last action, where it is part of the state, is 0."""
        unit = 2 * noise.uniform(noise.fold(key, 0), len(self._start), dtype=self.dtype) - 1
        x = self._start.to(unit) + self._spread * unit
        return torch.cat([x, x.new_zeros(len(x), len(self._map) - x.shape[1])], dim=1)

    def disturbance(self, key: Int64[Tensor, "n"], k: Int64[Tensor, "n"]) -> Tensor:
        """Nothing is random; the keys as they are."""
        return key

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], w: Tensor, p: Params) -> State:
        """See :class:`~steersman.envs.plant.Plant`."""
        (state,) = tree_leaves(x)
        return torch.cat([state, u.to(state)], dim=1) @ self._map.T.to(state)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """The outputs."""
        (state,) = tree_leaves(x)
        return state @ self._readout.T.to(state)

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n nz"]:
        """The reference, the same at every step."""
        return self._reference.to(k.device).expand(k.shape[0], -1)


Matrix = np.ndarray[Any, np.dtype[np.float64]]
Names = tuple[tuple[str, ...], tuple[str, ...]]


def _matrices(system: Any) -> tuple[Matrix, Matrix, Matrix, Matrix, Any, Names]:
    """Matrices, sampling time as python-control says it, and names of inputs and outputs.

    Raises:
        ValueError: If they do not fit together, or the system is of another kind.
    """
    if isinstance(system, Mapping):
        system = dict(system)
        known = ({"A", "B", "C"}, {"numerator", "denominator"})
        if not any(needs <= set(system) <= needs | {"D", "dt"} for needs in known):
            raise ValueError(
                f"system: a table holds A, B, C and perhaps D and dt, or numerator, denominator and perhaps dt; got "
                f"{', '.join(map(str, system)) or 'nothing'}"
            )
        if "numerator" in system:
            control = needed("control", "control", "a transfer function")
            system = control.tf(system["numerator"], system["denominator"], system.get("dt", 0))
    if isinstance(system, Mapping):
        A, B, C = (_matrix(name, system[name]) for name in ("A", "B", "C"))
        D = _matrix("D", system["D"]) if "D" in system else np.zeros((len(C), B.shape[1]))
        dt, names = system.get("dt", 0), _numbered(B.shape[1], len(C))
    elif all(hasattr(system, name) for name in ("num", "den", "dt")) and not hasattr(system, "A"):
        return _matrices(needed("control", "control", "a transfer function").ss(system))
    elif all(hasattr(system, name) for name in ("A", "B", "C", "D", "dt")):
        A, B, C, D = (_matrix(name, getattr(system, name)) for name in ("A", "B", "C", "D"))
        dt, names = system.dt, (tuple(system.input_labels), tuple(system.output_labels))
    else:
        raise ValueError(f"system: give a StateSpace, a TransferFunction or a table, got {type(system).__name__}")
    ns, m, ny = len(A), B.shape[1], len(C)
    for name, part, shape in (("A", A, (ns, ns)), ("B", B, (ns, m)), ("C", C, (ny, ns)), ("D", D, (ny, m))):
        if part.shape != shape or not ns or not m or not ny:
            raise ValueError(f"system: {name} must have shape {shape} beside the others, got {part.shape}")
    return A, B, C, D, dt, names


def _matrix(name: str, given: Any) -> Matrix:
    found = np.array(given, dtype=np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise ValueError(f"system: {name} must be a matrix of finite numbers, got {given!r:.80}")
    return found


def _numbered(m: int, ny: int) -> Names:
    return tuple(f"u{i}" for i in range(m)), tuple(f"y{i}" for i in range(ny))


def _period(dt: Any, period: float | None) -> float:
    """The control period.

    Raises:
        ValueError: If it is not known, or not that of a discrete system.
    """
    positive(period=period)
    if dt is None:
        raise ValueError("system: its dt is None; say whether it is continuous (0) or discrete (its period)")
    own = None if dt is True or dt == 0 else float(dt)
    if own is not None and period is not None and not math.isclose(own, period, rel_tol=1e-12):
        raise ValueError(f"period is {period}, but the system is discrete with {own}; sample it anew or leave it out")
    found = own if period is None else period
    if found is None:
        raise ValueError("period: the system does not say; give the control period")
    positive(dt=found)
    return float(found)


def _sampled(A: Matrix, B: Matrix, period: float) -> Matrix:
    """``[A B]`` of the system with its input held for a period."""
    ns, m = B.shape
    rate = torch.zeros(ns + m, ns + m, dtype=torch.float64)
    rate[:ns] = torch.tensor(np.hstack([A, B]))
    found: Matrix = torch.matrix_exp(rate * period)[:ns].numpy()
    return found


def _with_feedthrough(step: Matrix, C: Matrix, D: Matrix) -> tuple[Matrix, Matrix]:
    """Step and readout of the state, followed by the last action where the output needs it."""
    if not D.any():
        return step, C
    ns, m = len(step), D.shape[1]
    big = np.zeros((ns + m, ns + 2 * m))
    big[:ns, :ns], big[:ns, ns + m :], big[ns:, ns + m :] = step[:, :ns], step[:, ns:], np.eye(m)
    return big, np.hstack([C, D])


def _entries(name: str, given: Sequence[float] | None, count: int, default: float = 0.0) -> tuple[float, ...]:
    """As many numbers as are needed.

    Raises:
        ValueError: If there are more or fewer.
    """
    found = (default,) * count if given is None else tuple(float(number) for number in given)
    if len(found) != count or any(math.isnan(number) for number in found):
        raise ValueError(f"{name} must have {count} {'entry' if count == 1 else 'entries'}, got {given}")
    return found
