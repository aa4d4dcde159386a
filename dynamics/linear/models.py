"""Linear models: identified from data (ARX in state-space form) or linearised from a plant."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.learned import Learned
from steersman.dynamics.linear.arx import ARX
from steersman.dynamics.linear.identification import DISAGREE, RIDGES, contexts, identify, longest_window
from steersman.dynamics.truth.expansion import flatten_state, linearize
from steersman.dynamics.windowed.windows import starts
from steersman.envs.plant import Plant
from steersman.envs.settings import at_least
from steersman.envs.tree import Params, State

MOST = 8
"""Measurements in a window, at most, where nothing is said."""
RIDGE = 1e-10
"""Weight of the squared coefficients, where it is neither given nor chosen."""


@dataclass(frozen=True)
class AffineSystem:
    """``s+ = A s + B u + c``, ``y = C s + d``, ``z = Cz s + dz``.

    Attributes:
        A: State matrix.
        B: Input matrix.
        c: State offset.
        C: Measured-output matrix; exogenous outputs have no row.
        d: Measured-output offset.
        Cz: Performance-output matrix.
        dz: Performance-output offset.
        W: Covariance of the one-step prediction error of s, for Kalman filters; zero for a linearised plant.
    """

    A: Float[Tensor, "ns ns"]
    B: Float[Tensor, "ns m"]
    c: Float[Tensor, "ns"]
    C: Float[Tensor, "nk ns"]
    d: Float[Tensor, "nk"]
    Cz: Float[Tensor, "nz ns"]
    dz: Float[Tensor, "nz"]
    W: Float[Tensor, "ns ns"]


class SpectrumWarning(UserWarning):
    """The data do not settle how fast the fastest mode of a linear model grows, or are too few to tell."""


class LinearDynamics(Learned):
    """Affine state-space model with matrices ``A_, B_, c_, C_, d_, Cz_, dz_, W_``.

    Fitted to data, the state holds the last ``context`` kept outputs and the ``context - 1`` actions between
    them, oldest first, and the last block row of ``A_`` is an ARX model found by ridge regression on normalised
    columns (Ljung, System Identification, 2nd ed., section 4.2); z is read out affinely from the same state. How
    many measurements that are, and the ridge, is chosen by predictions of held-out episodes
    (:func:`~steersman.dynamics.linear.identification.identify`): many steps ahead, since longer windows than the data
    tell apart bring modes that the plant does not have, and few, since shorter ones than a delay calls for lose the
    closed loop. Made by :meth:`from_plant`, the state is the plant's own, flattened.

    At the start of an episode a window is filled by repetition, which no ARX model can explain; its first
    ``context - 1`` predictions are therefore worse than the later ones.

    Attributes:
        context: Measurements in the window; before a fit, the most that there may be.
        radii_: Spectral radii of the choice taken and of those that predict as well far ahead, beyond chance.
    """

    A_: Tensor
    B_: Tensor
    c_: Tensor
    C_: Tensor
    d_: Tensor
    Cz_: Tensor
    dz_: Tensor
    W_: Tensor
    full_state_: Tensor
    context_: Tensor
    radii_: Tensor
    judged_: Tensor

    def __init__(self, context: int | None = None, ridge: float | None = None, choose: bool = True) -> None:
        """Store the settings.

        Args:
            context: The most measurements that the window may hold, at least 1; fewer are taken if they predict as
                well, or if no episode holds so many. None is 8.
            ridge: Weight of the squared coefficients of normalised columns against the mean squared error; None
                chooses it.
            choose: False takes the window of ``context`` measurements as it is, which an episode must hold, and 1e-10
                for a ridge that is not given.

        Raises:
            ValueError: If a setting is out of range, or ``choose=False`` comes without a context.
        """
        super().__init__()
        at_least(1, context=context)
        at_least(0, ridge=ridge)
        if context is None and not choose:
            raise ValueError("choose=False needs a context: the number of measurements in the window")
        self._most, self._ridge, self._choose = context, ridge, choose
        self.context = context or MOST

    def fit(self, data: Trajectories) -> LinearDynamics:
        """Identify the model; see the class for the method.

        Warns:
            SpectrumWarning: If choices that predict as well disagree on how fast the fastest mode grows, or nothing
                could be held out to judge them on.

        Raises:
            ValueError: If the data are not finite or too large, do not fit the bound problem or, with
                ``choose=False``, hold no whole window.
        """
        self._prepare(data)
        data = replace(data, valid=data.complete)
        self.require_transitions(data.valid)
        most = self._most or MOST
        if self._choose:
            most = min(most, longest_window(data.valid))
        lengths = contexts(most) if self._choose else [most]
        ridges = RIDGES if self._choose else (RIDGE,)
        if self._ridge is not None:
            ridges = (self._ridge,)
        problem = getattr(self, "problem", None)
        zero = data.u.new_zeros(1, data.u.shape[-1])
        neutral = zero[0] if problem is None else problem.actions.neutral(1, zero)[0]
        found, good = identify(data, self.kept_, neutral, lengths, ridges)
        self._companion(found, data.u.shape[-1])
        self._learn("Cz_", found.V.T)
        self._learn("dz_", found.d)
        W = torch.zeros_like(self.A_)
        newest = slice((found.context - 1) * len(found.b), found.context * len(found.b))
        W[newest, newest] = found.covariance
        self._learn("W_", W)
        self._learn("judged_", torch.tensor(bool(good) or len(lengths) == len(ridges) == 1))
        self._learn("radii_", torch.tensor([choice.radius for choice in good], dtype=torch.float64))
        self._set_mode(False, found.context)
        for note in self.notes:
            warnings.warn(note, SpectrumWarning, stacklevel=2)
        return self

    @property
    def longest(self) -> int:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        return max(self.context, self._most or MOST) if self._choose else self.context

    def require_transitions(self, valid: Bool[Tensor, "N T"]) -> None:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        if not self._choose:
            starts(valid, self._most or MOST, 1)

    @property
    def notes(self) -> tuple[str, ...]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        if "judged_" in self._buffers and not self.judged_:
            return (
                f"the data are too few to hold any of them out: the linear model's window of {self.context} and its "
                "ridge are judged by nothing; collect longer or more episodes",
            )
        radii = self.radii_ if "radii_" in self._buffers and len(self.radii_) else torch.ones(1)
        low, high = float(radii.min()), float(radii.max())
        if high <= max(1.0, low) * (1 + DISAGREE):
            return ()
        return (
            f"the linear model's fastest mode grows {float(radii[0]):.3g}-fold in a step, but models that predict as "
            f"well say {low:.3g} to {high:.3g}: the data do not settle it; collect longer or more episodes, or excite "
            "more",
        )

    def _companion(self, found: ARX, m: int) -> None:
        """State-space form of an ARX model."""
        nk, weights = len(found.b), found.W.T
        past_y, past_u = found.context * nk, (found.context - 1) * m
        ns = past_y + past_u
        A, B, c = weights.new_zeros(ns, ns), weights.new_zeros(ns, m), weights.new_zeros(ns)
        A[: past_y - nk, nk:past_y] = torch.eye(past_y - nk, dtype=A.dtype)
        A[past_y - nk : past_y] = weights[:, :ns]
        B[past_y - nk : past_y] = weights[:, ns:]
        c[past_y - nk : past_y] = found.b
        if past_u:
            A[past_y : ns - m, past_y + m :] = torch.eye(past_u - m, dtype=A.dtype)
            B[ns - m :] = torch.eye(m, dtype=A.dtype)
        C = weights.new_zeros(nk, ns)
        C[:, past_y - nk : past_y] = torch.eye(nk, dtype=A.dtype)
        for name, value in {"A_": A, "B_": B, "c_": c, "C_": C, "d_": C.new_zeros(nk)}.items():
            self._learn(name, value)

    @classmethod
    def from_plant(cls, plant: Plant, x: State, u: Float[Tensor, "1 m"], p: Params) -> LinearDynamics:
        """First-order model of a plant around one state and action, usually an equilibrium.

        Args:
            plant: The plant.
            x: State of one row (leading axis 1), floating-point leaves only.
            u: Action of one row.
            p: Parameters of one row.

        Raises:
            ValueError: If x has more than one row or leaves that are not floating-point numbers.
        """
        model = cls(context=1, choose=False).bind(plant.problem)
        model._set_outputs(len(plant.measured), plant.exogenous)
        found = linearize(plant, x, u, p)
        kept = model.kept_
        matrices = {
            "A_": found.A, "B_": found.B, "c_": found.c, "C_": found.C[kept], "d_": found.d[kept],
            "Cz_": found.Cz, "dz_": found.dz, "W_": torch.zeros_like(found.A),
        }  # fmt: skip
        for name, value in matrices.items():
            model._learn(name, value)
        model._set_mode(True, 1)
        return model

    def _set_mode(self, full_state: bool, context: int) -> None:
        self._learn("full_state_", torch.tensor(full_state))
        self._learn("context_", torch.tensor(context))
        self.needs_state, self.context = full_state, context

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.needs_state = bool(self._buffers.get("full_state_", torch.tensor(False)))
        if "context_" in self._buffers:
            self.context = int(self.context_)

    def state_space(self) -> AffineSystem:
        """The matrices as one object; its state is ``h["s"]``.

        Raises:
            RuntimeError: Before a fit.
        """
        self._ready()
        return AffineSystem(self.A_, self.B_, self.c_, self.C_, self.d_, self.Cz_, self.dz_, self.W_)

    def init(self, window: Window) -> Hidden:
        """Hidden state ``{"s": [n, ns], "exogenous": [n, ne]}``.

        Raises:
            ValueError: If the window is too short, or lacks the true state where the model needs it.
            RuntimeError: Before a fit.
        """
        y, u, exogenous = self._window(window)
        if not self.needs_state:
            return {"s": torch.cat([y.flatten(1), u.flatten(1)], dim=1), "exogenous": exogenous}
        if window.now.x is None:
            raise ValueError("a linearised plant needs window.now.x; run it in the 'solver access' track")
        return {"s": flatten_state(window.now.x), "exogenous": exogenous}

    def step(
        self, h: Hidden, u: Float[Tensor, "n m"], dt: Float[Tensor, "n"] | None = None, w: Tensor | None = None
    ) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        assert isinstance(h, dict)  # noqa: S101 - narrows the type
        self.one_period(dt)
        s = h["s"] @ self.A_.T + u @ self.B_.T + self.c_
        if w is not None:
            at = self._newest
            s = torch.cat([s[:, : at.start], s[:, at] + w @ self._root.T, s[:, at.stop :]], dim=1)
        return {"s": s, "exogenous": h["exogenous"]}

    @property
    def noises(self) -> int:  # type: ignore[override]
        """As many as outputs, whose one-step errors have the covariance ``W_``; a linearised plant has none."""
        return 0 if self.needs_state or "kept_" not in self._buffers else len(self.kept_)

    @property
    def _newest(self) -> slice:
        """Where the newest outputs stand in the state."""
        nk = len(self.kept_)
        return slice((self.context - 1) * nk, self.context * nk)

    @property
    def _root(self) -> Float[Tensor, "nk nk"]:
        """A root of the covariance of one-step errors."""
        size, axes = torch.linalg.eigh(self.W_[self._newest, self._newest])
        root: Tensor = axes * size.clamp(min=0).sqrt()
        return root

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        assert isinstance(h, dict)  # noqa: S101 - narrows the type
        y = self._assemble(h["s"] @ self.C_.T + self.d_, h["exogenous"])
        return y, h["s"] @ self.Cz_.T + self.dz_
