"""The published ``polystep`` package behind this package's contract, for comparisons."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from torch import Tensor, nn

from steersman.optimizers.base import Search, State
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.schedules import Schedule, check_positive, value_at


class _RecordedError(Exception):
    """Leaves the package's step once the candidates are known."""


@dataclass
class PeerMemory:
    """Particles, dual potentials of the last transport (empty before), and steps taken."""

    particles: Tensor
    f: Tensor
    g: Tensor
    steps: int = 0


@final
@dataclass(eq=False, kw_only=True)
class PeerPolyStep(Search[PeerMemory]):
    """``PolyStepOptimizer`` of ``polystep`` 1.1; the defaults are that package's.

    It evaluates in the middle of its step. Asking therefore begins a step and leaves it by an exception as soon as
    the candidates are known; telling repeats it from the same random numbers and lets it finish. Its options beyond
    those below (momentum, amortised steps, subspaces) are not passed on.

    Attributes:
        temperature: Its ``epsilon``, a number or a cosine schedule.
        step_radius: In units of the temperature.
        probe_radius: Likewise.
        block: Its ``particle_dim``, at least 2.
        polytope: Template.
        solver: Transport.
        divisor: Its ``scale_cost``: a number, or "mean" or "max_cost" of the costs.
    """

    name: ClassVar[str] = "polystep_peer"
    Memory: ClassVar[type[PeerMemory]] = PeerMemory

    temperature: float | Schedule = 0.1
    step_radius: float = 1.0
    probe_radius: float = 2.0
    block: int = 2
    polytope: Polytope = Polytope.SIMPLEX
    solver: Literal["softmax", "sinkhorn", "min_cost_greedy"] = "sinkhorn"
    divisor: Literal["mean", "max_cost"] | float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.polytope = Polytope(self.polytope)
        if self.block < 2:
            raise ValueError(f"block must be at least 2, got {self.block}: the package has no smaller particles")
        for name in ("temperature", "step_radius", "probe_radius"):
            check_positive(name, getattr(self, name))
        if self.solver not in ("softmax", "sinkhorn", "min_cost_greedy"):
            raise ValueError(f"solver must be 'softmax', 'sinkhorn' or 'min_cost_greedy', got {self.solver!r}")
        if isinstance(self.divisor, str):
            if self.divisor not in ("mean", "max_cost"):
                raise ValueError(f"divisor must be 'mean', 'max_cost' or a positive number, got {self.divisor!r}")
        else:
            check_positive("divisor", self.divisor)
        if isinstance(self.temperature, Schedule) and self.temperature.shape != "cosine":
            raise ValueError(f"the schedule of temperature must be 'cosine', got {self.temperature.shape!r}")

    def _begin(self, x0: Tensor) -> PeerMemory:
        self._optimizer = self._new(x0)
        empty = x0.new_zeros(0)
        return PeerMemory(self._optimizer.state.X.clone(), empty, empty.clone())

    def _new(self, x0: Tensor) -> Any:
        try:
            from polystep import CosineEpsilon, PolyStepOptimizer
        except ModuleNotFoundError:
            raise ModuleNotFoundError("search 'polystep_peer' wraps polystep: pip install steersman[peers]") from None
        self._points, t = _Points(x0), self.temperature
        heat: Any = t
        if isinstance(t, Schedule):
            heat = CosineEpsilon(init=t.start, target=t.end, total_steps=t.generations)
        rows = -(-len(x0) // self.block) * self.polytope.size(self.block)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on threads and sizes
            optimizer = PolyStepOptimizer(
                self._points, particle_dim=self.block, epsilon=heat, step_radius=self.step_radius,
                probe_radius=self.probe_radius, polytope_type=self.polytope.value, solver=self.solver,
                scale_cost=self.divisor, chunk_size=rows, seed=0,
            )  # fmt: skip
        optimizer._generator = self.gen
        return optimizer

    def _size(self) -> int:
        return len(self.memory.particles) * self.polytope.size(self.block)

    def _ask(self, out: Tensor) -> None:
        self._rng = self.gen.get_state()

        def record(batch: dict[str, Tensor]) -> Tensor:
            out.copy_(batch["x"])
            raise _RecordedError

        try:
            self._step(record)
        except _RecordedError:
            return

    def _tell(self, cost: Tensor) -> None:
        self.gen.set_state(self._rng)
        self._step(lambda batch: cost)
        state, m = self._optimizer.state, self.memory
        m.particles, m.steps = state.X.clone(), m.steps + 1
        if state.f is not None:
            m.f, m.g = state.f.clone(), state.g.clone()

    def _step(self, closure: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # costs that are all equal or far apart are the caller's affair
            self._optimizer.step(closure)

    def _restore(self, state: State) -> None:
        self._optimizer, m = self._new(self._origin), self.memory
        inner = self._optimizer.state
        inner.X, inner.iteration_count, inner.ot_step_count = m.particles.clone(), m.steps, m.steps
        if len(m.f):
            inner.f, inner.g, inner.last_solve_eps = m.f.clone(), m.g.clone(), value_at(self.temperature, m.steps - 1)

    @property
    def incumbent(self) -> Tensor:
        """The particles as one vector."""
        return self.memory.particles.flatten()[: len(self._origin)].clone()


class _Points(nn.Module):
    """A network that is nothing but its parameters."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x0.detach().clone())

    def forward(self) -> Tensor:
        return self.x
