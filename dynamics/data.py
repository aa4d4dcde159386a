"""Episodes that models are fitted to: when and what was measured, and what was done in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

EVEN = 1e-6
"""Share of the control period that a step may differ from it and still count as one period."""
_ALIGNMENT = 64
"""Alignment in bytes of what torch allocates on a CPU."""
_PARTS = ("y", "z", "u", "valid", "t", "seen")


@dataclass(frozen=True)
class Trajectories:
    """Episodes of equal length. Entry j of y and z comes before action j; both have one more entry than u.

    Tensors that are views of something larger are copied, so that equal data give equal fits, bit by bit: products of
    matrices round by the layout and the alignment of their memory.

    Attributes:
        y: Measured outputs; those not ``seen`` repeat the last ones that were, or are any finite numbers.
        z: Performance outputs, known where all outputs were seen.
        u: Actions, each held until the next entry.
        valid: Transitions ``j -> j+1`` that really happened; False after an episode ended early.
        period: Control period.
        t: Times of the entries, in the unit of the period; by default one period apart, from 0.
        seen: Outputs that were measured; by default all.

    Raises:
        ValueError: If shapes disagree, the period is not positive, or times do not grow where a transition happened.
    """

    y: Float[Tensor, "N T1 ny"]
    z: Float[Tensor, "N T1 nz"]
    u: Float[Tensor, "N T m"]
    valid: Bool[Tensor, "N T"]
    period: float
    t: Float[Tensor, "N T1"] = None  # type: ignore[assignment]  # made of the period where it is not given
    seen: Bool[Tensor, "N T1 ny"] = None  # type: ignore[assignment]  # likewise: all

    def __post_init__(self) -> None:
        n, length, _ = self.u.shape
        made: dict[str, Tensor] = {}
        if self.t is None:
            steps = torch.arange(length + 1, dtype=torch.float64, device=self.y.device)
            made["t"] = (self.period * steps).expand(n, -1)
        if self.seen is None:
            made["seen"] = torch.ones_like(self.y, dtype=torch.bool)
        for name in _PARTS:
            object.__setattr__(self, name, _canonical(made.get(name, getattr(self, name))))
        self._check()

    def _check(self) -> None:
        n, length, _ = self.u.shape
        for name in ("y", "z", "t", "seen"):
            got = getattr(self, name).shape[:2]
            if tuple(got) != (n, length + 1):
                raise ValueError(
                    f"{name} must have {n} episodes of {length + 1} entries for u {tuple(self.u.shape)}, "
                    f"got {tuple(got)}"
                )
        if tuple(self.valid.shape) != (n, length):
            raise ValueError(f"valid must have shape {(n, length)}, got {tuple(self.valid.shape)}")
        if self.seen.shape != self.y.shape:
            raise ValueError(f"seen must have the shape {tuple(self.y.shape)} of y, got {tuple(self.seen.shape)}")
        if not self.period > 0:
            raise ValueError(f"period must be positive, got {self.period}")
        if len(back := (self.valid & ~(self.dt > 0)).nonzero()):
            episode, j = back[0].tolist()
            raise ValueError(
                f"times must grow: entry {j + 1} of episode {episode} is at {float(self.t[episode, j + 1]):g}, after "
                f"one at {float(self.t[episode, j]):g}; sort the rows, or mark the transition as not valid"
            )

    def __len__(self) -> int:
        return self.u.shape[0]

    @property
    def steps(self) -> int:
        """Control periods that the real transitions took, each a whole number of them, at least one: plant steps."""
        return int((self.dt[self.valid] / self.period).round().clamp(min=1).sum())

    @property
    def dt(self) -> Float[Tensor, "N T"]:
        """Time that each transition takes; exactly the control period where it is that but for rounding."""
        dt = self.t[:, 1:] - self.t[:, :-1]
        return torch.where((dt - self.period).abs() <= EVEN * self.period, self.period, dt)

    @property
    def uniform(self) -> bool:
        """Whether all transitions that happened take one control period."""
        return bool((self.dt == self.period)[self.valid].all())

    @property
    def whole(self) -> bool:
        """Whether every output was seen wherever an episode went."""
        return bool((self.complete == self.valid).all())

    @property
    def complete(self) -> Bool[Tensor, "N T"]:
        """Transitions that happened between entries of which all outputs were seen."""
        entire = self.seen.all(dim=-1)
        return self.valid & entire[:, :-1] & entire[:, 1:]

    def index(self, rows: Int[Tensor, "k"] | slice) -> Trajectories:
        """The chosen episodes."""
        return self._each(lambda name, part: part[rows])

    def entries(self, first: int, last: int) -> Trajectories:
        """The entries ``first .. last`` of all episodes, and what was done between them."""
        return self._each(lambda name, part: part[:, first : last if name in ("u", "valid") else last + 1])

    def split(self, fraction: float) -> tuple[Trajectories, Trajectories]:
        """The first part and the rest; episodes are independent, so no shuffle is needed."""
        cut = max(1, min(len(self) - 1, round(fraction * len(self))))
        return self.index(slice(0, cut)), self.index(slice(cut, None))

    @classmethod
    def join(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """All episodes of some data, one after the other; shorter ones end in transitions that never happened.

        Raises:
            ValueError: If there is none, or the periods differ.
        """
        if len(periods := {part.period for part in parts}) != 1:
            raise ValueError(f"joined data need one control period, got {sorted(periods)}")
        length = max(part.u.shape[1] for part in parts)
        padded = [part.padded(length) for part in parts]
        whole = {name: torch.cat([getattr(part, name) for part in padded]) for name in _PARTS}
        return cls(period=parts[0].period, **whole)

    def padded(self, length: int) -> Trajectories:
        """The same episodes with so many transitions; those that never happened repeat the last outputs."""
        more = length - self.u.shape[1]
        if not more:
            return self

        def longer(name: str, part: Tensor) -> Tensor:
            if name in ("u", "valid"):
                return torch.cat([part, part.new_zeros(len(self), more, *part.shape[2:])], dim=1)
            end = part[:, -1:].expand(-1, more, *part.shape[2:])
            if name == "t":
                end = end + self.period * torch.arange(1, more + 1, dtype=part.dtype, device=part.device)
            return torch.cat([part, end], dim=1)

        return self._each(longer)

    def to(self, device: torch.device | str) -> Trajectories:
        """The same data on a device."""
        return self._each(lambda name, part: part.to(device))

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Trajectories:
        return Trajectories(period=self.period, **{name: change(name, getattr(self, name)) for name in _PARTS})

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for files."""
        parts = {name: getattr(self, name).detach().cpu().contiguous() for name in _PARTS}
        return parts | {"period": torch.tensor(self.period, dtype=torch.float64)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Trajectories:
        """What :meth:`tensors` gave; files of before there were times have one entry each period, all of it seen."""
        return cls(period=float(tensors["period"]), **{name: tensors[name] for name in _PARTS if name in tensors})

    def save(self, path: Path | str) -> None:
        """Write to a safetensors file."""
        save_file(self.tensors(), str(path))

    @classmethod
    def load(cls, path: Path | str) -> Trajectories:
        """Read what :meth:`save` wrote."""
        return cls.of(load_file(str(path)))


def _canonical(x: Tensor) -> Tensor:
    """The tensor itself if it is laid out row by row from an aligned address, else such a copy."""
    plain = x.is_contiguous() and (x.device.type != "cpu" or x.data_ptr() % _ALIGNMENT == 0)
    return x if plain else x.clone(memory_format=torch.contiguous_format)
