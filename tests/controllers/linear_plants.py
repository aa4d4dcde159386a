"""Linear plants with quadratic costs, and their exact optima by dense algebra, independent of the package."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor

from steersman.dynamics.linear.models import LinearDynamics
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Linear, Objective, Quadratic, Term
from steersman.envs.plant import Plant
from steersman.envs.simulator import Measurement

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """``x+ = A x + B u + c``, ``z = Cz x + dz`` with the stage cost ``(z-r)'E(z-r) + z'Q z + 2 q'z + u'R u + 2 g'u + du'S du``."""

    A: Array
    B: Array
    c: Array
    Cz: Array
    dz: Array
    E: Array
    Q: Array
    q: Array
    R: Array
    g: Array
    S: Array

    @property
    def m(self) -> int:
        return self.B.shape[1]

    def terms(self) -> tuple[Term, ...]:
        found: tuple[Term, ...] = (
            Quadratic(name="e", on="e", weights=tuple(self.E)),
            Quadratic(name="z", on="z", weights=tuple(self.Q)),
            Linear(name="q", on="z", weights=tuple(2 * self.q)),
            Quadratic(name="u", on="u", weights=tuple(self.R)),
            Linear(name="g", on="u", weights=tuple(2 * self.g)),
        )
        return (*found, Quadratic(name="du", on="du", weights=tuple(self.S))) if self.S.any() else found


def case(seed: int, ns: int = 3, m: int = 2, nz: int = 2, rate: bool = False) -> Case:
    """A random stable or slightly unstable plant with all kinds of terms."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(ns, ns))
    A *= rng.uniform(0.6, 1.1) / np.abs(np.linalg.eigvals(A)).max()
    return Case(
        A, rng.normal(size=(ns, m)), 0.3 * rng.normal(size=ns), rng.normal(size=(nz, ns)), 0.3 * rng.normal(size=nz),
        rng.uniform(0.5, 2, nz), rng.uniform(0, 1, nz), 0.3 * rng.normal(size=nz), rng.uniform(0.2, 2, m),
        0.3 * rng.normal(size=m), rng.uniform(0.2, 2, m) if rate else np.zeros(m),
    )  # fmt: skip


def scalar(a: float = 1.0, b: float = 1.0, weight: float = 1.0, effort: float = 1.0) -> Case:
    """One state, one action, one tracked output."""
    one, nil = np.ones(1), np.zeros(1)
    return Case(
        a * np.eye(1), b * np.eye(1), nil, np.eye(1), nil, weight * one, nil, nil, effort * one, nil, nil
    )  # fmt: skip


Ending = tuple[Array, Array, Array]
"""E, Q and q of the outputs after the last action, in place of the case's own."""


def least_squares(
    case: Case, x0: Array, u_prev: Array, r: Array, end: Ending | None = None
) -> tuple[Array, Array, float]:
    """A plan's cost ``sum_j l(z_{k+j}, u_{k+j-1})`` as ``|F U - f|^2 + constant`` over the stacked actions U.

    Args:
        case: The plant.
        x0: State at step k.
        u_prev: Action before the plan.
        r: References of ``z_{k+1} .. z_{k+h}``.
        end: Cost of ``z_{k+h}``, if it is not that of the others.
    """
    h, m, ns = len(r), case.m, len(x0)
    G, free = np.zeros((ns, h * m)), x0
    rows, right, constant = [], [], 0.0

    def square(weights: Array, matrix: Array, vector: Array, linear: Array) -> None:
        """``sum_i w_i s_i^2 + 2 l_i s_i`` for ``s = matrix U + vector``, the square completed."""
        nonlocal constant
        safe = np.where(weights > 0, weights, 1.0)
        shift = np.where(weights > 0, linear / safe, 0.0)
        assert not np.where(weights > 0, 0.0, linear).any(), "a linear cost needs a quadratic one beside it"
        root = np.sqrt(weights)
        rows.append(root[:, None] * matrix)
        right.append(-root * (vector + shift))
        constant -= float((weights * shift**2).sum())

    for j in range(h):
        own = np.zeros((m, h * m))
        own[:, j * m : (j + 1) * m] = np.eye(m)
        before = np.zeros((m, h * m))
        if j:
            before[:, (j - 1) * m : j * m] = np.eye(m)
        square(case.R, own, np.zeros(m), case.g)
        square(case.S, own - before, np.zeros(m) if j else -u_prev, np.zeros(m))
        G, free = case.A @ G + case.B @ own, case.A @ free + case.c
        z = case.Cz @ free + case.dz
        E, Q, q = end if end is not None and j == h - 1 else (case.E, case.Q, case.q)
        square(E, case.Cz @ G, z - r[j], np.zeros(len(z)))
        square(Q, case.Cz @ G, z, q)
    return np.concatenate(rows), np.concatenate(right), constant


def optimum(
    case: Case,
    x0: Array,
    u_prev: Array,
    r: Array,
    bound: float = np.inf,
    fixed: int = 0,
    end: Ending | None = None,
) -> tuple[Array, float]:
    """The cheapest actions ``[h, m]`` and their cost; the first ``fixed`` actions are zero, all within ``+-bound``."""
    F, f, constant = least_squares(case, x0, u_prev, r, end)
    F = F[:, fixed * case.m :]
    U = lsq_linear(F, f, (-bound, bound), tol=1e-14).x if np.isfinite(bound) else np.linalg.lstsq(F, f, rcond=None)[0]
    cost = float(((F @ U - f) ** 2).sum() + constant)
    return np.concatenate([np.zeros(fixed * case.m), U]).reshape(len(r), case.m), cost


def plan_cost(case: Case, x0: Array, u_prev: Array, r: Array, U: Array) -> float:
    """The cost of given actions ``[h, m]``, step by step."""
    x, before, total = x0, u_prev, 0.0
    for u, aim in zip(U, r, strict=True):
        x = case.A @ x + case.B @ u + case.c
        z = case.Cz @ x + case.dz
        du = u - before
        total += float(case.E @ (z - aim) ** 2 + case.Q @ z**2 + 2 * case.q @ z)
        total += float(case.R @ u**2 + 2 * case.g @ u + case.S @ du**2)
        before = u
    return total


class LinearPlant(Plant):
    """A case as a plant: the state is measured, the reference is a table ``[horizon + 1, nz]``."""

    gradient = "exact"

    def __init__(
        self,
        case: Case,
        horizon: int = 40,
        bound: float = 1e6,
        reference: Array | None = None,
        terminal: tuple[Term, ...] = (),
    ) -> None:
        self.case, self.horizon, self.dt, self.hold = case, horizon, 1.0, 1
        self.actions = ActionSet((-bound,) * case.m, (bound,) * case.m)
        self.objective = Objective(case.terms(), terminal)
        self.measured = tuple(f"x{i}" for i in range(len(case.A)))
        self.performed = tuple(f"z{i}" for i in range(len(case.Cz)))
        self.table = torch.tensor(np.zeros((1, len(case.Cz))) if reference is None else reference)
        self.A, self.B, self.c = (torch.tensor(part) for part in (case.A, case.B, case.c))
        self.Cz, self.dz = torch.tensor(case.Cz), torch.tensor(case.dz)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return noise.normal(key, len(self.A))

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x @ self.A.T + u @ self.B.T + self.c

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x

    def perform(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x @ self.Cz.T + self.dz

    def reference(self, k: Tensor, p: dict[str, Tensor]) -> Tensor:
        return self.table[k.clamp(max=len(self.table) - 1)]

    def model(self) -> LinearDynamics:
        zero = torch.zeros(1, len(self.A), dtype=torch.float64)
        return LinearDynamics.from_plant(self, zero, torch.zeros(1, self.case.m, dtype=torch.float64), {})


def measurement(x: Array, u_prev: Array, r: Array, k: int = 0) -> Measurement:
    """What a controller sees of rows ``x [n, ns]`` with references ``r [n, 1 + preview, nz]``."""
    rows = torch.tensor(np.atleast_2d(x))
    n = len(rows)
    return Measurement(
        torch.full((n,), k), rows, torch.tensor(r).expand(n, -1, -1), torch.tensor(u_prev).expand(n, -1), rows, {}
    )


def limited(plant: LinearPlant, *, failure: float) -> LinearPlant:
    """The same plant with a price of failure."""
    plant.objective = replace(plant.objective, failure=failure)
    return plant
