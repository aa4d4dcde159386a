"""CMA-ES by the ``cma`` package, resumable bit by bit without pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from steersman.optimizers.base import Search, State
from steersman.optimizers.polystep.schedules import check_positive

_LARGEST = 4000
"""Dimension above which a full covariance (its square in memory, its cube in time) is refused."""


@dataclass
class CMAMemory:
    """All costs told so far, one row per generation; with the start they determine everything else."""

    told: Tensor


@final
@dataclass(eq=False, kw_only=True)
class CMAES(Search[CMAMemory]):
    """Covariance matrix adaptation (Hansen & Ostermeier 2001; Hansen's ``cma`` package).

    The package's object can only be saved by pickling, which executes code on loading. A state of this search
    holds the start, its random numbers and every cost told; loading replays them. That is exact, takes the
    package's own time once more (no evaluations), and holds eight bytes per evaluation. Replay needs the same
    version of ``cma`` and of the linear algebra. All random numbers come from the search's generator.

    The package's stopping criteria are not obeyed: the caller's budget decides.

    Attributes:
        sigma: Initial standard deviation.
        size: Points per generation; 0 takes the package's ``4 + 3 log(dim)``.
        covariance: "full", or "diagonal" (separable CMA-ES: linear time, for many dimensions).
    """

    name: ClassVar[str] = "cma_es"
    Memory: ClassVar[type[CMAMemory]] = CMAMemory

    sigma: float = 0.5
    size: int = 0
    covariance: Literal["full", "diagonal"] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        _package()
        check_positive("sigma", self.sigma)
        if self.size != 0 and self.size < 3:
            raise ValueError(f"size must be at least 3, or 0 for the default, got {self.size}")
        if self.covariance not in ("full", "diagonal"):
            raise ValueError(f"covariance must be 'full' or 'diagonal', got {self.covariance!r}")

    def _begin(self, x0: Tensor) -> CMAMemory:
        if self.covariance == "full" and len(x0) > _LARGEST:
            raise ValueError(
                f"x0 has {len(x0)} entries, too many for a full covariance (at most {_LARGEST}); "
                "set covariance='diagonal' or search a subspace"
            )
        self._like = x0
        self._es = self._new(x0)
        return CMAMemory(torch.zeros(0, self._size(), dtype=torch.float64))

    def _new(self, x0: Tensor) -> Any:
        options = {
            "randn": self._normal,
            "seed": np.nan,
            "CMA_diagonal": self.covariance == "diagonal",
            "verbose": -10,
            "verb_log": 0,
            "verb_disp": 0,
        }
        if self.size:
            options["popsize"] = self.size
        start = x0.double().cpu().numpy()
        # The package refuses one dimension; a second, idle one leaves the first as it is.
        return _package().CMAEvolutionStrategy(start if len(start) > 1 else [*start, 0.0], self.sigma, options)

    def _normal(self, *shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        unit = torch.randn(*shape, generator=self.gen, dtype=torch.float64, device=self.gen.device)
        return np.asarray(unit.cpu().numpy())

    def _size(self) -> int:
        return int(self._es.popsize)

    def _ask(self, out: Tensor) -> None:
        self._points = self._es.ask()
        out.copy_(torch.from_numpy(np.stack(self._points)[:, : out.shape[1]]))

    def _tell(self, cost: Tensor) -> None:
        values = cost.cpu()
        self._es.tell(self._points, values.tolist())
        self.memory.told = torch.cat([self.memory.told, values[None]])

    def _restore(self, state: State) -> None:
        self._like = self._origin
        self.gen.set_state(self._origin_gen)
        told = self.memory.told.cpu()
        self._begin(self._origin)
        self.memory.told = told
        for row in told:
            self._es.tell(self._es.ask(), row.tolist())

    @property
    def incumbent(self) -> Tensor:
        """Mean of the distribution."""
        mean = torch.from_numpy(np.array(self._es.mean[: len(self._like)]))
        return mean.to(self._like.device, self._like.dtype)


def _package() -> Any:
    """Raises: ImportError: Without the package; before anything runs, since a search is made first."""
    try:
        import cma
    except ModuleNotFoundError:
        raise ImportError("the search cma_es needs cma: pip install 'steersman[search]'") from None
    return cma
