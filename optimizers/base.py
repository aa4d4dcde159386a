"""The contract of searches: ask for points, tell their costs. Everything is minimised."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.optimizers.champion import Best, Champion
from steersman.optimizers.settings import settings_json

Value = Tensor | int | float | str | bool
State = dict[str, Value]
"""A search as tensors, numbers and short strings: what safetensors and JSON can hold."""

M = TypeVar("M")
S = TypeVar("S", bound="Search[Any]")


@dataclass(eq=False, kw_only=True)
class Search(ABC, Generic[M]):
    """A population search over vectors. Subclasses are final dataclasses whose fields are their settings.

    :meth:`start` fixes the first point and the random numbers; then :meth:`ask` and :meth:`tell` alternate. A
    subclass implements :meth:`_begin`, :meth:`_size`, :meth:`_ask`, :meth:`_tell` and :attr:`incumbent`, and keeps
    everything that must survive a checkpoint in ``self.memory``, a dataclass of tensors and numbers named by
    ``Memory``; what :meth:`_ask` leaves for :meth:`_tell` may live in private attributes, because a state taken
    between the two is restored by asking again.

    Attributes:
        confirmations: Generations a candidate must win against the best so far, on equal terms, before it becomes
            :attr:`best`. Two rows of each population serve this. Zero trusts every single cost and saves the two
            rows: right for a cost without noise.
    """

    name: ClassVar[str]
    Memory: ClassVar[type[Any]]

    confirmations: int = 1

    def __post_init__(self) -> None:
        if self.confirmations < 0:
            raise ValueError(f"confirmations must not be negative, got {self.confirmations}; 0 trusts single costs")
        self.memory: M
        self._asked: Tensor | None = None
        self._numbers: list[float] | None = None
        self._started = False

    # ------------------------------------------------------------------ for subclasses

    @abstractmethod
    def _begin(self, x0: Float[Tensor, "dim"]) -> M:
        """State before the first generation. Raises ValueError if the settings do not suit ``x0``."""

    @abstractmethod
    def _size(self) -> int:
        """Rows that :meth:`_ask` returns; constant over the search."""

    @abstractmethod
    def _ask(self, out: Float[Tensor, "pop dim"]) -> None:
        """Write the points to evaluate into ``out``; the only place that draws from ``self.gen``."""

    @abstractmethod
    def _tell(self, cost: Float[Tensor, "pop"]) -> None:
        """Learn from finite float64 costs of the rows of the last :meth:`_ask`."""

    @property
    @abstractmethod
    def incumbent(self) -> Float[Tensor, "dim"]:
        """Centre of the search, the point one would deploy if costs are noisy; not necessarily evaluated."""

    def _extra(self) -> State:
        """Further entries of the state, for searches that hold more than a memory."""
        return {}

    def _restore(self, state: State) -> None:
        """Rebuild what ``self.memory`` does not hold, after a load; ``self.gen`` may be moved, it is set later."""

    def _read(self, numbers: Float[Tensor, "k"]) -> list[float]:
        """Numbers that :meth:`_tell` decides by, read together with those that judge the champion.

        Of all that a generation does this alone makes the host wait for a GPU: call it once.
        """
        found: list[float] = torch.cat([numbers.double(), self._unread]).tolist()
        self._numbers = found[len(numbers) :]
        return found[: len(numbers)]

    # ------------------------------------------------------------------ for users

    def start(self: S, x0: Float[Tensor, "dim"], *, seed: int = 0, gen: torch.Generator | None = None) -> S:
        """Begin at ``x0``, whose type and device the search keeps.

        Args:
            x0: First point.
            seed: Seed of a generator of the search's own.
            gen: Generator to draw from instead, on the device of ``x0``.

        Raises:
            ValueError: If ``x0`` is not a finite floating-point vector, ``gen`` lives on another device, or the
                settings do not suit the dimension.
        """
        if not isinstance(x0, Tensor):
            raise ValueError(f"x0 must be a tensor, got {type(x0).__name__}; use torch.tensor(x0) or flatten(network)")
        if x0.ndim != 1 or x0.numel() == 0 or not x0.is_floating_point():
            raise ValueError(f"x0 must be a floating-point vector, got {x0.dtype} of shape {tuple(x0.shape)}")
        if not bool(torch.isfinite(x0).all()):
            raise ValueError("x0 must be finite; it has NaN or infinite entries")
        if gen is not None and gen.device.type != x0.device.type:
            raise ValueError(f"gen is on {gen.device}, x0 on {x0.device}; make the generator on x0's device")
        self.gen = gen if gen is not None else torch.Generator(x0.device).manual_seed(seed)
        self._origin, self._origin_gen = x0.detach().clone(), self.gen.get_state()
        self.memory = self._begin(self._origin.clone())
        self.champion = Champion(self._origin.clone(), self._origin.clone())
        self.evaluations, self.generation = 0, 0
        self._asked, self._started = None, True
        return self

    @property
    def started(self) -> bool:
        """Whether the search has a first point."""
        return self._started

    @property
    def population(self) -> int:
        """Rows of every population."""
        self._require_start()
        return self._size() + (2 if self.confirmations else 0)

    def ask(self, out: Float[Tensor, "pop dim"] | None = None) -> Float[Tensor, "pop dim"]:
        """The next points to evaluate, in the type and on the device of ``x0``.

        The search keeps the tensor until the costs are told: what is changed in place, say by clipping, is what
        :attr:`best` will report.

        Args:
            out: Where to write them, say the last population; by default a fresh tensor, whose memory can cost more
                time than the points.

        Raises:
            ValueError: If ``out`` is not contiguous or not of the population's shape, type and device.
            RuntimeError: Before :meth:`start`, or if the costs of the last population have not been told;
                :attr:`waiting` holds it.
        """
        self._require_start()
        if self._asked is not None:
            raise RuntimeError("ask was called twice; tell the costs of the last population first")
        if out is None:
            out = self._origin.new_empty(self.population, len(self._origin))
        else:
            self._check_out(out)
        self._gen_before = self.gen.get_state()
        size = self._size()
        # Filled in place: with many parameters the copies of a concatenation cost more than the search itself.
        self._asked = out
        self._ask(self._asked[:size])
        if self.confirmations:
            self._asked[size], self._asked[size + 1] = self.champion.x, self.champion.challenger
        return self._asked

    def tell(self, cost: Float[Tensor, "pop"]) -> None:
        """Costs of the rows of the last population. Costs that are not finite count as the worst of all.

        Raises:
            RuntimeError: If no population is waiting for its costs.
            ValueError: If there is not one real cost per row; the population then still waits.
        """
        self._require_start()
        if self._asked is None:
            raise RuntimeError("tell was called without a population; call ask first")
        if not isinstance(cost, Tensor) or cost.is_complex():
            kind = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
            raise ValueError(f"cost must be a tensor of real numbers, got {kind}; use torch.tensor(costs)")
        if tuple(cost.shape) != (len(self._asked),):
            raise ValueError(
                f"cost has shape {tuple(cost.shape)}, the population has {len(self._asked)} rows; give one cost per row"
            )
        raw = cost.detach().to(self._asked.device, torch.float64)
        # An infinite sum of finite costs only takes the longer way, as do all costs on a GPU: they are not read for it.
        clean = raw.device.type == "cpu" and math.isfinite(float(raw.sum()))
        raw = raw if clean else torch.where(torch.isfinite(raw), raw, math.inf)
        asked, self._asked = self._asked, None
        size = self._size()
        lowest = raw[:size].argmin()[None]
        self._unread, self._numbers = torch.cat([raw[:size][lowest], raw[size:]]), None
        self._tell(raw[:size] if clean else _finite(raw[:size]))
        self._judge(asked, lowest)
        self.evaluations += len(asked)
        self.generation += 1

    @property
    def waiting(self) -> Float[Tensor, "pop dim"] | None:
        """The population whose costs have not been told, as after an evaluation that raised; None if there is none."""
        return self._asked

    @property
    def best(self) -> Best:
        """The best point, re-evaluated ``confirmations`` times or more.

        Raises:
            RuntimeError: While no finite cost has been told.
        """
        self._require_start()
        best = self.champion.best
        if best is None:
            raise RuntimeError("no finite cost has been told yet; tell costs, or read incumbent")
        return best

    def state_dict(self) -> State:
        """Everything needed to go on bit by bit, also between :meth:`ask` and :meth:`tell`."""
        self._require_start()
        gen = self._gen_before if self._asked is not None else self.gen.get_state()
        state: State = {"search": self.name, "settings": settings_json(self), "device": str(self._origin.device)}
        state |= {"evaluations": self.evaluations, "generation": self.generation, "asked": self._asked is not None}
        state |= {"origin": self._origin.clone(), "origin_gen": self._origin_gen.clone(), "gen": gen.clone()}
        return state | _unpack("memory", self.memory) | _unpack("champion", self.champion) | self._extra()

    def load_state_dict(self, state: State) -> None:
        """Go on from :meth:`state_dict`, in a started search or a fresh one.

        Raises:
            ValueError: If the state is another search's, or was made with other settings.
        """
        if state.get("search") != self.name:
            raise ValueError(f"the state is of search {state.get('search')!r}, not {self.name!r}; make that search")
        if state["settings"] != settings_json(self):
            raise ValueError(
                f"the state was made with settings {state['settings']}, this search has {settings_json(self)}; "
                "make the search with the former"
            )
        device = torch.device(str(state["device"]))
        self._origin, self._origin_gen = _tensor(state, "origin").to(device), _tensor(state, "origin_gen")
        self.memory = _pack("memory", self.Memory, state, device)
        self.champion = _pack("champion", Champion, state, device)
        self.evaluations, self.generation = int(state["evaluations"]), int(state["generation"])
        self.gen, self._asked, self._started = torch.Generator(device), None, True
        self._restore(state)
        self.gen.set_state(_tensor(state, "gen"))
        if state["asked"]:
            self.ask()

    def same_start(self, state: State) -> bool:
        """Whether a state began at this search's first point with its random numbers."""
        gen, origin = _tensor(state, "origin_gen"), _tensor(state, "origin").to(self._origin.device)
        return torch.equal(gen, self._origin_gen) and torch.equal(origin, self._origin)

    # ------------------------------------------------------------------ inside

    def _judge(self, asked: Tensor, lowest: Tensor) -> None:
        if self._numbers is None:
            self._read(self._unread[:0])
        assert self._numbers is not None  # noqa: S101 - just read
        sample, (value, *rivals) = asked[lowest][0], self._numbers
        if not self.confirmations:
            self.champion.select(sample, value)
            return
        old, new = rivals
        if self.champion.fight(old, new, self.confirmations):
            # Samples are lucky or bold, the centre is neither: each gets its chance in turn.
            self.champion.challenge(self.incumbent if self.generation % 2 else sample)
        if math.isfinite(value):
            self.champion.replace_failed(sample, value)

    def _check_out(self, out: Tensor) -> None:
        want = (self.population, len(self._origin)), self._origin.dtype, self._origin.device
        if (tuple(out.shape), out.dtype, out.device) != want or not out.is_contiguous():
            raise ValueError(
                f"out is {tuple(out.shape)}, {out.dtype}, {out.device}; it must be contiguous and "
                f"{want[0]}, {want[1]}, {want[2]}: take a population that ask returned"
            )

    def _require_start(self) -> None:
        if not self._started:
            raise RuntimeError(f"search {self.name!r} has no first point; call start(x0) or load_state_dict first")


def _finite(cost: Tensor) -> Tensor:
    """Costs with infinities replaced by a value above every finite one, at a distance of their spread."""
    good = torch.isfinite(cost)
    low = torch.where(good, cost, math.inf).amin()
    high = torch.where(good, cost, -math.inf).amax()
    worst = high + torch.where(high > low, high - low, high.abs().clamp(min=1.0))
    return torch.where(good, cost, torch.where(good.any(), worst, 0.0))


def _unpack(prefix: str, part: Any) -> State:
    values = {f"{prefix}.{f.name}": getattr(part, f.name) for f in fields(part)}
    return {name: v.clone() if isinstance(v, Tensor) else v for name, v in values.items()}


def _pack(prefix: str, kind: type[Any], state: State, device: torch.device) -> Any:
    found = {f.name: state[f"{prefix}.{f.name}"] for f in fields(kind)}
    return kind(**{name: v.clone().to(device) if isinstance(v, Tensor) else v for name, v in found.items()})


def _tensor(state: State, name: str) -> Tensor:
    value = state[name]
    if not isinstance(value, Tensor):
        raise ValueError(f"entry {name!r} of the state must be a tensor, got {type(value).__name__}")
    return value.clone()
