"""Searches that hold another search and change the coordinates it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from steersman.optimizers.base import Search, State

M = TypeVar("M")


@dataclass(eq=False, kw_only=True)
class Wrapper(Search[M]):
    """A search in other coordinates; both share one generator, and confirmations happen out here.

    Attributes:
        inner: The search within; its ``confirmations`` must be 0.
    """

    inner: Search[Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.confirmations:
            raise ValueError(
                f"inner has confirmations={self.inner.confirmations}; make it with 0 and give them to {self.name!r}"
            )

    def _size(self) -> int:
        return self.inner.population

    def _tell(self, cost: Tensor) -> None:
        self.inner.tell(cost)

    def _extra(self) -> State:
        return {f"inner.{name}": value for name, value in self.inner.state_dict().items()}

    def _restore(self, state: State) -> None:
        inner = {name.removeprefix("inner."): value for name, value in state.items() if name.startswith("inner.")}
        # A pending population is asked for again out here, from the one generator that both searches share.
        self.inner.load_state_dict(inner | {"asked": False})
        self.inner.gen = self.gen
