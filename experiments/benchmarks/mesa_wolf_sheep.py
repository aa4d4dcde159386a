"""NetLogo's wolf-sheep-grass model in plain Mesa: animals one after another in random order.

The peer of the ``abm`` benchmark, and the oracle that the batched plant is held to in distribution.
"""

from __future__ import annotations

import math
from typing import Any

import mesa
import numpy as np
from numpy.typing import NDArray

from steersman.envs.abm._flock import SIDE, Rules


class Animal(mesa.Agent):  # type: ignore[misc]
    """Walks by its heading on the torus and lives on energy."""

    species: int

    def __init__(self, model: Meadow, x: float, y: float, heading: float, energy: float) -> None:
        """Put an animal at a place."""
        super().__init__(model)
        self.x, self.y, self.heading, self.energy = x, y, heading, energy

    @property
    def cell(self) -> tuple[int, int]:
        """Grid cell."""
        return int(self.x), int(self.y)

    def forward(self) -> None:
        """One unit along the heading (clockwise from north)."""
        angle = math.radians(self.heading)
        self.x, self.y = (self.x + math.sin(angle)) % SIDE, (self.y + math.cos(angle)) % SIDE
        self.x, self.y = self.x if self.x < SIDE else 0.0, self.y if self.y < SIDE else 0.0

    def step(self) -> None:
        """Turn, move, eat, die or give birth."""
        model = self.model
        self.leave()
        self.heading += model.random.randrange(50)
        self.heading -= model.random.randrange(50)
        self.forward()
        self.enter()
        self.energy -= 1
        self.eat()
        if self.energy < 0:
            self.die()
        elif model.random.random() < model.rules.reproduction[self.species]:
            self.energy /= 2
            child = type(self)(model, self.x, self.y, model.random.uniform(0, 360), self.energy)
            child.forward()
            child.enter()

    def die(self) -> None:
        """Leave the model."""
        self.leave()
        self.remove()

    def enter(self) -> None:
        """Be found on the cell."""

    def leave(self) -> None:
        """Be no longer found there."""

    def eat(self) -> None:
        """Gain energy where there is food."""
        raise NotImplementedError


class Sheep(Animal):
    """Eats grass."""

    species = 0

    def enter(self) -> None:
        """See :class:`Animal`."""
        self.model.herd.setdefault(self.cell, []).append(self)

    def leave(self) -> None:
        """See :class:`Animal`."""
        self.model.herd[self.cell].remove(self)

    def eat(self) -> None:
        """See :class:`Animal`."""
        if self.model.green[self.cell]:
            self.model.green[self.cell] = False
            self.energy += self.model.rules.gain[0]


class Wolf(Animal):
    """Eats one random sheep of its cell."""

    species = 1

    def eat(self) -> None:
        """See :class:`Animal`."""
        prey = self.model.herd.get(self.cell)
        if prey:
            self.model.random.choice(prey).die()
            self.energy += self.model.rules.gain[1]


class Meadow(mesa.Model):  # type: ignore[misc]
    """The model; ``share`` is the fraction of each species that is removed at the start of every tick."""

    def __init__(self, seed: int, rules: Rules | None = None, share: tuple[float, float] = (0.0, 0.0)) -> None:
        """Set up as NetLogo does."""
        super().__init__(seed=seed)
        self.rules, self.share = rules or Rules(), share
        self.green = self.rng.random((SIDE, SIDE)) < 0.5
        self.countdown = np.where(
            self.green, self.rules.regrowth, self.rng.integers(0, self.rules.regrowth, (SIDE, SIDE))
        )
        self.herd: dict[tuple[int, int], list[Sheep]] = {}
        for kind, count, gain in zip((Sheep, Wolf), self.rules.start, self.rules.gain, strict=True):
            for _ in range(count):
                place = self.random.uniform(0, SIDE), self.random.uniform(0, SIDE)
                kind(self, *place, self.random.randrange(360) * 1.0, self.random.randrange(int(2 * gain)) * 1.0).enter()

    def step(self) -> None:
        """Removal, all sheep, all wolves, then the grass."""
        for kind, share in zip((Sheep, Wolf), self.share, strict=True):
            living: Any = list(self.agents_by_type[kind])
            for animal in self.random.sample(living, int(share * len(living) + 0.5)):
                animal.die()
        for kind in (Sheep, Wolf):
            self.agents_by_type[kind].shuffle_do("step")
        brown = ~self.green
        grown = brown & (self.countdown <= 0)
        self.green |= grown
        self.countdown = np.where(grown, self.rules.regrowth, self.countdown - brown)

    @property
    def counts(self) -> NDArray[np.float64]:
        """Sheep, wolves and green cells."""
        return np.array([len(self.agents_by_type[Sheep]), len(self.agents_by_type[Wolf]), self.green.sum()], float)
