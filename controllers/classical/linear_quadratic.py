"""The feedback that is optimal for an affine model and a quadratic cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.controllers.classical.quadratic_cost import OutputCost, QuadraticCost
from steersman.dynamics.linear.models import AffineSystem
from steersman.dynamics.linear.riccati import require_stabilizable_and_detectable, riccati
from steersman.dynamics.linear.spectrum import eigenvalues
from steersman.envs.simulator import Measurement

SINGULAR = 1e-7
"""Singular values below this share of the largest count as zero: modes on the unit circle, up to rounding."""
REWARD = 1e-6
"""Share of a linear cost along a mode that is more than rounding."""
EXACT = 1e-12
"""Likewise, where matrices are as exact as they are given."""


@dataclass(frozen=True)
class _Recursion:
    """``P_0 .. P_{h-1}`` and the gains before them; the linear part begins with ``p_0 = q + qr r``."""

    P: list[Tensor]
    K: list[Tensor]
    q: Float[Tensor, "nx"]
    qr: Float[Tensor, "nx nr"]


class AffineFeedback:
    """``u = -K (s, u_prev) - k(r)``, optimal for an affine model, over a receding or an infinite horizon.

    With ``V_j(x) = x'P_j x + 2 p_j'x`` for j steps to go, ``k = (R + B'PB)^-1 (B'(Pc + p) + g)`` and
    ``p_{j+1} = q + (A - BK)'(P_j c + p_j) - K'g`` (completing the square; Bertsekas, Dynamic Programming I, 3.1).
    A receding horizon ends with the stage cost of its last outputs, or with the episode: rows near its end plan the
    steps that are left, and the cost of the end takes that place. No action follows, so none is held to the last one.
    The infinite horizon knows no end; it holds the present reference for ever and takes the limit of ``p_j``.
    """

    def __init__(self, system: AffineSystem, cost: QuadraticCost, horizon: int | None, steps: int) -> None:
        """Solve the Riccati equation.

        Args:
            system: The model.
            cost: Its cost.
            horizon: Control steps of a plan; None is the infinite horizon.
            steps: Control steps of an episode.

        Raises:
            ValueError: For the infinite horizon, if a mode grows that no action reaches or that costs nothing, or if
                a linear cost rewards driving a mode on and on.
        """
        self.horizon, self.steps = horizon, steps
        self._augment(system, cost)
        if horizon is None:
            require_stabilizable_and_detectable(self.A, self.B, self.Qs)
            self._leave_out(_priced_states(system, cost))
            P = riccati(self.A - self.B @ self._cross, self.B, self.Qs - self.N @ self._cross, self.R)
            self._P, self._K = P, self._gain(P)
            self._p0, self._pr = self._limit()
        else:
            self._going = self._recursion(system, cost.outputs, horizon)
            self._ending = self._recursion(system, cost.end, min(horizon, steps))

    def _augment(self, sys: AffineSystem, cost: QuadraticCost) -> None:
        """State ``(s, u_prev)``: the change of u becomes a cross term ``2 x'N u``."""
        ns, m = sys.B.shape
        S, none = torch.diag(cost.S), torch.zeros(ns, m, dtype=torch.float64)
        self.A = _block(sys.A.double(), 0 * S)
        self.B = torch.cat([sys.B.double(), torch.eye(m, dtype=torch.float64)])
        self.c = torch.cat([sys.c.double(), none[0]])
        Qs, self._q, self._qr = self._read_out(sys, cost.outputs)
        self._reward = torch.cat([sys.Cz.double().T @ cost.outputs.q, none[0]])
        self.Qs = Qs + _block(torch.zeros_like(sys.A).double(), S)
        self.R, self.N, self.g = torch.diag(cost.R) + S, torch.cat([none, -S]), cost.g
        self._cross = torch.linalg.solve(self.R, self.N.T)

    def _leave_out(self, Z: Float[Tensor, "nx no"]) -> None:
        """Go over to ``Z'(s, u_prev)``: P and p are zero for what costs nothing, which rounding would spoil."""
        self._basis = Z
        self.A, self.Qs = Z.T @ self.A @ Z, Z.T @ self.Qs @ Z
        self.B, self.N, self.c, self._cross = Z.T @ self.B, Z.T @ self.N, Z.T @ self.c, self._cross @ Z
        self._q, self._qr, self._reward = Z.T @ self._q, Z.T @ self._qr, Z.T @ self._reward

    def _read_out(self, sys: AffineSystem, cost: OutputCost) -> tuple[Tensor, Tensor, Tensor]:
        """Cost of the outputs of a state ``(s, u_prev)``: quadratic, linear, and linear for each reference."""
        ns, m = sys.B.shape
        Cz, dz = sys.Cz.double(), sys.dz.double()
        # Without tracking the outputs may be others than those that references are for.
        aim = Cz.T * -cost.E if bool(cost.E.any()) else Cz.new_zeros(ns, len(cost.E))
        square = _block(Cz.T @ (cost.Q[:, None] * Cz), Cz.new_zeros(m, m))
        slope = torch.cat([Cz.T @ (cost.Q * dz + cost.q), Cz.new_zeros(m)])
        return square, slope, torch.cat([aim, Cz.new_zeros(m, len(cost.E))])

    def _gain(self, P: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve(self.R + self.B.T @ P @ self.B, self.B.T @ P @ self.A + self.N.T)
        return solved

    def _recursion(self, sys: AffineSystem, end: OutputCost, steps: int) -> _Recursion:
        P, q, qr = self._read_out(sys, end)
        found = _Recursion([P], [self._gain(P)], q, qr)
        for _ in range(steps - 1):
            K = found.K[-1]
            P = self.Qs + self.A.T @ P @ self.A - K.T @ (self.R + self.B.T @ P @ self.B) @ K
            found.P.append(P)
            found.K.append(self._gain(P))
        return found

    def _limit(self) -> tuple[Float[Tensor, "nx"], Float[Tensor, "nx nr"]]:
        """Limit of ``p_j`` for no reference, and its slope in the reference.

        Along directions that the closed loop leaves where they are, the repeated p is not unique: there the recursion
        still has what it began with, which is nothing, unless costs mount up along them. What mounts up grows along
        left null vectors and leaves the actions alone if none of these can be reached.
        """
        closed = (self.A - self.B @ self._K).T
        start = torch.cat([self._q[:, None], self._qr], dim=1)
        step = start.clone()
        step[:, 0] += closed @ self._P @ self.c - self._K.T @ self.g
        still = torch.eye(len(closed), dtype=torch.float64) - closed
        values = eigenvalues(closed)
        count = int(((values - 1).abs() <= SINGULAR).sum())
        right, left = _null_space(still.T, count), _null_space(still, count)
        if right.shape[1] == left.shape[1] > 0:
            along = left @ torch.linalg.lstsq(right.T @ left, right.T @ step, driver="gelsd").solution
            self._refuse_reward(right, along)
            step = step - along
        matrix, wanted = torch.cat([still, right.T]), torch.cat([step, right.T @ torch.zeros_like(step)])
        solved = torch.linalg.lstsq(matrix, wanted, driver="gelsd").solution
        return solved[:, 0], solved[:, 1:]

    def _refuse_reward(self, right: Tensor, along: Tensor) -> None:
        """Refuse linear costs that mount up along directions which the actions reach: there is no best action.

        Raises:
            ValueError: If there are any.
        """
        paid = right.T @ self._reward
        met = float(paid.abs().max()) > REWARD * float(self._reward.abs().max())
        if met and float((self.B.T @ along[:, 0]).abs().max()) > REWARD * float(along[:, 0].abs().max()):
            raise ValueError(
                "a linear cost of outputs rewards driving a mode on and on, since nothing else holds it: the infinite "
                "horizon has no optimum; give lqr a horizon, or add a Quadratic on that output"
            )

    def __call__(self, s: Float[Tensor, "n ns"], m: Measurement) -> Float[Tensor, "n m"]:
        """Optimal actions for model states ``s``."""
        x = torch.cat([s, m.u_prev], dim=1).double()
        if self.horizon is None:
            p = self._p0 + m.r[:, 0].double() @ self._pr.T
            return self._act(x @ self._basis, p, self._P, self._K).to(s)
        r = m.references(self.horizon).double()
        left = (self.steps - m.k).clamp(1, self.horizon + 1)
        u = x.new_zeros(len(x), len(self.g))
        for steps in sorted(set(left.tolist())):
            rows = left == steps
            way = self._going if steps > self.horizon else self._ending
            u[rows] = self._act(x[rows], *self._backward(way, r[rows, :steps]))
        return u.to(s)

    def _act(self, x: Tensor, p: Tensor, P: Tensor, K: Tensor) -> Tensor:
        k = torch.linalg.solve(self.R + self.B.T @ P @ self.B, ((P @ self.c + p) @ self.B + self.g).T).T
        u: Tensor = -x @ K.T - k
        return u

    def _backward(self, way: _Recursion, r: Float[Tensor, "n h nz"]) -> tuple[Tensor, Tensor, Tensor]:
        """Linear part of the cost-to-go one step ahead, with its P, and the first gain."""
        last = r.shape[1] - 1
        p = way.q + r[:, last] @ way.qr.T
        for j in range(last):
            P, K = way.P[j], way.K[j]
            p = self._q + r[:, last - j - 1] @ self._qr.T + (P @ self.c + p) @ (self.A - self.B @ K) - self.g @ K
        return p, way.P[last], way.K[last]


def _priced_states(sys: AffineSystem, cost: QuadraticCost) -> Float[Tensor, "nx no"]:
    """Orthonormal basis of what is orthogonal to states ``(s, u_prev)`` that cost nothing, now and ever after."""
    m = sys.B.shape[1]
    A = _block(sys.A.double(), torch.zeros(m, m, dtype=torch.float64))
    priced = (cost.outputs.Q != 0) | (cost.outputs.q != 0)
    Cz, eye = sys.Cz.double()[priced], torch.eye(m, dtype=torch.float64)[cost.S != 0]
    rows = _block(torch.nn.functional.normalize(Cz, dim=1, eps=1e-300), eye)
    free = _kernel(rows, EXACT)
    while free.shape[1]:
        ahead = A @ free
        kept = _kernel(ahead - free @ (free.T @ ahead), EXACT * float(torch.linalg.matrix_norm(A)))
        if kept.shape[1] == free.shape[1]:
            break
        free = free @ kept
    return _kernel(free.T, 0.5)


def _kernel(M: Float[Tensor, "r s"], least: float) -> Float[Tensor, "s w"]:
    """Orthonormal basis of what M takes to zero, with singular values up to ``least``."""
    _, sv, Vh = torch.linalg.svd(M)
    basis: Tensor = Vh[int((sv > least).sum()) :].T
    return basis


def _null_space(M: Float[Tensor, "s s"], most: int) -> Float[Tensor, "s w"]:
    """Orthonormal basis of what M takes to zero, up to rounding, of no more than ``most`` directions."""
    _, sv, Vh = torch.linalg.svd(M)
    none = int((sv <= SINGULAR * sv.max()).sum()) if most else 0
    basis: Tensor = Vh[len(M) - min(most, none) :].T
    return basis


def _block(a: Tensor, b: Tensor) -> Tensor:
    """Block-diagonal matrix of two."""
    whole = a.new_zeros(a.shape[0] + b.shape[0], a.shape[1] + b.shape[1])
    whole[: a.shape[0], : a.shape[1]], whole[a.shape[0] :, a.shape[1] :] = a, b
    return whole
