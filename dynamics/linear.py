"""Linear models: identified from data (ARX in state-space form) or linearised from a plant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Hidden, Trajectories, Window
from steersman.dynamics.learned import Learned
from steersman.dynamics.linearize import flatten_state, linearize
from steersman.dynamics.windows import affine_fit, cut, starts
from steersman.envs.plant import Plant
from steersman.envs.settings import at_least
from steersman.envs.tree import Params, State


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


class LinearDynamics(Learned):
    """Affine state-space model with matrices ``A_, B_, c_, C_, d_, Cz_, dz_, W_``.

    Fitted to data, the state holds the last ``context`` kept outputs and the ``context - 1`` actions between
    them, oldest first, and the last block row of ``A_`` is an ARX model found by ridge regression on normalised
    columns (Ljung, System Identification, 2nd ed., section 4.2); z is read out affinely from the same state.
    Made by :meth:`from_plant`, the state is the plant's own, flattened.

    At the start of an episode a window is filled by repetition, which no ARX model can explain; its first
    ``context - 1`` predictions are therefore worse than the later ones.
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

    def __init__(self, context: int = 4, ridge: float = 1e-10) -> None:
        """Store the settings.

        Args:
            context: Measurements in the window, at least 1.
            ridge: Weight of the squared coefficients of normalised columns against the mean squared error.

        Raises:
            ValueError: If a setting is out of range.
        """
        super().__init__()
        at_least(1, context=context)
        at_least(0, ridge=ridge)
        self.context, self.ridge = context, ridge

    def fit(self, data: Trajectories) -> LinearDynamics:
        """Identify the model; see the class for the method.

        Raises:
            ValueError: If the data are not finite, do not fit the bound problem or hold no whole window.
        """
        self._prepare(data)
        length = self.context
        rows = starts(data.valid, length, 1)
        kept = data.y[..., self.kept_]
        nk, m = kept.shape[-1], data.u.shape[-1]
        y = cut(kept, rows, 1 - length, length).flatten(1)
        u = cut(data.u, rows, 1 - length, length).flatten(1)
        target = cut(kept, rows, 1, 1).flatten(1)
        phi = torch.cat([y, u], dim=1)
        # Differences are regressed: slow outputs nearly repeat, and the ridge then pulls towards persistence.
        weights, offset = affine_fit(phi, target - y[:, -nk:], self.ridge)
        residual = target - y[:, -nk:] - phi @ weights - offset
        weights[(length - 1) * nk : length * nk] += torch.eye(nk, dtype=phi.dtype)
        self._companion(weights.T, offset, nk, m)

        # Outputs are read after the step, since z may hold what the step itself brought, such as a reward.
        y, u = cut(kept, rows, 2 - length, length).flatten(1), cut(data.u, rows, 2 - length, length - 1).flatten(1)
        z, dz = affine_fit(torch.cat([y, u], dim=1), cut(data.z, rows, 1, 1).flatten(1), self.ridge)
        self._learn("Cz_", z.T.contiguous())
        self._learn("dz_", dz)
        now = slice((length - 1) * nk, length * nk)
        W = torch.zeros_like(self.A_)
        W[now, now] = residual.T @ residual / len(residual)
        self._learn("W_", W)
        self._set_mode(False)
        return self

    def _companion(self, weights: Tensor, offset: Tensor, nk: int, m: int) -> None:
        """State-space form of ``y+ = weights [y window, u window] + offset``."""
        past_y, past_u = self.context * nk, (self.context - 1) * m
        ns = past_y + past_u
        A, B, c = weights.new_zeros(ns, ns), weights.new_zeros(ns, m), weights.new_zeros(ns)
        A[: past_y - nk, nk:past_y] = torch.eye(past_y - nk, dtype=A.dtype)
        A[past_y - nk : past_y] = weights[:, :ns]
        B[past_y - nk : past_y] = weights[:, ns:]
        c[past_y - nk : past_y] = offset
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
        model = cls(context=1).bind(plant.problem)
        model._set_outputs(len(plant.measured), plant.exogenous)
        found = linearize(plant, x, u, p)
        kept = model.kept_
        matrices = {
            "A_": found.A, "B_": found.B, "c_": found.c, "C_": found.C[kept], "d_": found.d[kept],
            "Cz_": found.Cz, "dz_": found.dz, "W_": torch.zeros_like(found.A),
        }  # fmt: skip
        for name, value in matrices.items():
            model._learn(name, value)
        model._set_mode(True)
        return model

    def _set_mode(self, full_state: bool) -> None:
        self._learn("full_state_", torch.tensor(full_state))
        self.needs_state = full_state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.needs_state = bool(self._buffers.get("full_state_", torch.tensor(False)))

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

    def step(self, h: Hidden, u: Float[Tensor, "n m"]) -> Hidden:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        assert isinstance(h, dict)  # noqa: S101 - narrows the type
        return {"s": h["s"] @ self.A_.T + u @ self.B_.T + self.c_, "exogenous": h["exogenous"]}

    def output(self, h: Hidden) -> tuple[Float[Tensor, "n ny"], Float[Tensor, "n nz"]]:
        """See :class:`~steersman.dynamics.base.Dynamics`."""
        assert isinstance(h, dict)  # noqa: S101 - narrows the type
        y = self._assemble(h["s"] @ self.C_.T + self.d_, h["exogenous"])
        return y, h["s"] @ self.Cz_.T + self.dz_
