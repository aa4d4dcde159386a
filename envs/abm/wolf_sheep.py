"""Wolf-sheep-grass predation on a 51 x 51 torus, controlled by removing fractions of the animals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from steersman.envs.abm import _compiled, _slots
from steersman.envs.abm._flock import Rules
from steersman.envs.abm._slots import SPECIES, setup
from steersman.envs.abm._wolf_sheep_picture import picture
from steersman.envs.actions import ActionSet
from steersman.envs.noise import fold, integers
from steersman.envs.objective import Limit, Objective, Quadratic
from steersman.envs.placement import constant
from steersman.envs.plant import Plant, Status, Trail, going
from steersman.envs.tree import Params, State, rows_like, tree_map

TARGETS: Final = ((231.0, 24.0), (167.0, 36.0))
"""(sheep, wolves) that are held on average by constant removal of (0, 0.02) and (0.01, 0.01) per tick."""
_SWITCH_GAP = (150, 250)
_SETUP, _WARMUP, _SWITCHES, _FIRST = 1, 2, 3, 4
_ATTEMPTS = 16


class WolfSheep(Plant):
    """NetLogo's wolf-sheep-grass model (Wilensky 1997); the task is to hold moving targets of both species.

    The action is the fraction of sheep and of wolves removed at the start of *every* tick of the control
    period, in [0, 0.1]; the removed animals are chosen uniformly. Outputs: y = (sheep, wolves, grass,
    sheep target, wolf target, ticks since the last switch), z = (sheep, wolves). The target alternates between
    ``TARGETS``, switching every 150..250 ticks. Removing sheep lowers the wolves rather than the sheep.

    A row ends as TERMINATED when a species is extinct and as VIOLATED when a species outgrows its capacity.

    The state is a dict: ``tick`` int64 ``[n]``; ``grown`` int32 ``[n, 2601]``, the tick from which a cell
    ``51 y + x`` is green; ``overflow`` bool ``[n]``; and for both species ``sheep_*`` and ``wolf_*`` the slots
    ``alive``, ``x``, ``y`` (in [0, 51)), ``energy``, ``heading`` (integer, 1/180 degree clockwise from north) and
    ``identity`` (seeds the animal's random numbers), each ``[n, capacity]``.
    """

    def __init__(
        self,
        hold: int = 10,
        horizon: int = 100,
        *,
        switching: bool = True,
        warmup: int = 200,
        rounding: str = "half_up",
        capacity: tuple[int, int] = (1024, 512),
        rules: Rules | None = None,
    ) -> None:
        """Set the task up.

        Args:
            hold: Ticks per control step.
            horizon: Control steps in an episode.
            switching: Whether the target switches during an episode; else the first one, drawn at random, is held.
            warmup: Ticks without control between the model's setup and the start of an episode; 0 starts at the
                setup itself.
            rounding: ``half_up`` removes ``floor(fraction * count + 1/2)`` animals, ``binomial`` removes each
                animal independently with the given probability.
            capacity: Slots for (sheep, wolves).
            rules: Rates of the model; the NetLogo defaults if omitted.

        Raises:
            ValueError: On a non-positive hold or horizon, a negative warm-up, an unknown rounding, or a
                capacity below the number of animals at the setup.
        """
        self.rules = rules or Rules()
        for name, value, least in (("hold", hold, 1), ("horizon", horizon, 1), ("warmup", warmup, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if rounding not in ("half_up", "binomial"):
            raise ValueError(f"rounding must be 'half_up' or 'binomial', got {rounding!r}")
        for name, slots, start in zip(SPECIES, capacity, self.rules.start, strict=True):
            if slots < start:
                raise ValueError(f"capacity for {name} is {slots} but the setup has {start}; raise the capacity")
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 1.0, hold, horizon, "none", "tick"
        self.switching, self.warmup, self.rounding, self.capacity = switching, warmup, rounding, capacity
        self.actions = ActionSet(
            (0.0, 0.0), (0.1, 0.1), names=("remove_sheep", "remove_wolves"), units=("1/tick", "1/tick")
        )
        self.objective = Objective(
            (
                Quadratic(name="tracking", on="e", weights=(1 / 200**2, 1 / 30**2)),
                Quadratic(name="removal", on="u", weights=(10.0, 10.0)),
            ),
            failure=10.0,
            # Extinction is at less than half an animal; the targets are nearer to it than a tenth of the capacity.
            limits=tuple(
                Limit(name=name, index=i, low=0.5, high=capacity[i] + 0.5, margin=0.01)
                for i, name in enumerate(SPECIES)
            ),
        )
        self.measured = ("sheep", "wolves", "grass", "sheep_target", "wolf_target", "ticks_since_switch")
        self.performed = ("sheep", "wolves")
        self.exogenous = (3, 4, 5)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Ticks of the target switches ``[n, S]``, ascending, and the first target ``[n]`` (index of TARGETS)."""
        low, high = _SWITCH_GAP
        switches = self.hold * self.horizon // low + 1
        gaps = integers(fold(key, _SWITCHES), low, high + 1, switches)
        return {"switch_tick": gaps.cumsum(dim=1), "first_target": integers(fold(key, _FIRST), 0, 2)}

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """The uncontrolled regime ``warmup`` ticks after a random setup.

        A warm-up in which a species dies out or outgrows its capacity is drawn again.
        """
        x = self._warm(key)
        for attempt in range(1, _ATTEMPTS):
            bad = ~going(self.status(x["tick"], x, p))
            if not bool(bad.any()):
                return x
            again = self._warm(fold(key[bad], attempt))
            rows = (bad.cumsum(0) - 1).clamp(min=0)
            x = tree_map(lambda old, new: torch.where(rows_like(bad, old), new[rows], old), x, again)  # noqa: B023
        raise ValueError(f"{_ATTEMPTS} warm-ups in a row failed; raise capacity {self.capacity} or change the rules")

    def _warm(self, key: Tensor) -> dict[str, Tensor]:
        x = setup(fold(key, _SETUP), self.rules, self.capacity)
        if self.warmup:
            x = _advance(key)(x, fold(key, _WARMUP), self.warmup, self.rules, None, False)
        return x

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n 2"], w: Tensor, p: Params) -> State:
        """State ``hold`` ticks later; ``w`` holds the noise key of each row."""
        x = _tensors(x)
        theta = u.detach().to(torch.float64).nan_to_num(0.0).t().reshape(-1)
        removing = theta if bool((theta > 0).any()) else None
        return _advance(w)(x, w, self.hold, self.rules, removing, self.rounding == "binomial")

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n ny"]:
        """See the class."""
        x = _tensors(x)
        now = k * self.hold
        past = p["switch_tick"] * self._passed(k, p)
        grass = (x["grown"] <= x["tick"][:, None]).sum(dim=1)
        counts = [x["sheep_alive"].sum(dim=1), x["wolf_alive"].sum(dim=1), grass]
        since = now - past.amax(dim=1)
        return torch.cat(
            [torch.stack(counts, dim=1).to(self.dtype), self.reference(k, p), since[:, None].to(self.dtype)], dim=1
        )

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 2"]:
        """Counts of sheep and wolves."""
        x = _tensors(x)
        return torch.stack([x["sheep_alive"].sum(dim=1), x["wolf_alive"].sum(dim=1)], dim=1).to(self.dtype)

    def _passed(self, k: Tensor, p: Params) -> Tensor:
        """Switches that have happened, bool ``[n, S]``."""
        return (p["switch_tick"] <= (k * self.hold)[:, None]) & self.switching

    def reference(self, k: Int64[Tensor, "n"], p: Params) -> Float[Tensor, "n 2"]:
        """Target (sheep, wolves) at step ``k``."""
        switched = self._passed(k, p).sum(dim=1)
        targets = constant(TARGETS, k, self.dtype)
        return targets[(p["first_target"] + switched) % 2]

    def status(self, k: Int64[Tensor, "n"], x: State, p: Params) -> UInt8[Tensor, "n"]:
        """TERMINATED after an extinction, VIOLATED after an overflow of the slots."""
        x = _tensors(x)
        living = x["sheep_alive"].any(dim=1) & x["wolf_alive"].any(dim=1)
        end = torch.where(living, int(Status.OK), int(Status.TERMINATED))
        return torch.where(x["overflow"], int(Status.VIOLATED), end).to(torch.uint8)

    def render(self, trail: Trail) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Left the torus with grass, sheep and wolves, right the counts and their targets over time."""
        x = _tensors(trail.x[-1])
        row = {name: (t[0] if t.dim() > _RANKS[name] else t).cpu().numpy() for name, t in x.items() if name in _RANKS}
        return picture(row, np.asarray(trail.k) * self.hold, np.asarray(trail.z), np.asarray(trail.r))


_RANKS: Final = {"tick": 0, "grown": 1} | {f"{s}_{part}": 1 for s in SPECIES for part in ("alive", "x", "y")}


def _advance(like: Tensor) -> Callable[..., dict[str, Tensor]]:
    """The implementation for a device: compiled on a CPU, batched tensor operations elsewhere; equal bit by bit."""
    return _compiled.advance if like.device.type == "cpu" else _slots.advance


def _tensors(x: State) -> dict[str, Tensor]:
    if isinstance(x, Tensor):
        raise ValueError("the state of WolfSheep is a dict of tensors, got one tensor; see the class docstring")
    return x
