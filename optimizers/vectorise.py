"""Networks as vectors, and whole populations of them in one call."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap


class SlowPopulationWarning(UserWarning):
    """A module does not run under ``torch.func.vmap``; its population is evaluated one member at a time."""


_REJECTED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def flatten(module: nn.Module) -> Float[Tensor, "dim"]:
    """All parameters as one vector, in the order of ``named_parameters``; a copy, without gradient.

    Raises:
        ValueError: If the module has no parameters, or they differ in type or device.
    """
    parts = [p.detach().flatten() for p in module.parameters()]
    if not parts:
        raise ValueError(f"{type(module).__name__} has no parameters to flatten")
    kinds = {(p.dtype, p.device) for p in parts}
    if len(kinds) > 1:
        raise ValueError(f"parameters must share one type and device, got {sorted(map(str, kinds))}; convert them")
    return torch.cat(parts)


def unflatten(module: nn.Module, vector: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
    """Parameters by name from a vector, or a batch of vectors (batch axes stay in front); views where possible.

    Raises:
        ValueError: If the vector's length is not the module's number of parameters.
    """
    named = dict(module.named_parameters())
    sizes = [p.numel() for p in named.values()]
    if vector.shape[-1] != sum(sizes):
        raise ValueError(
            f"vector has {vector.shape[-1]} entries, {type(module).__name__} has {sum(sizes)} parameters; "
            "make it with flatten"
        )
    parts = torch.split(vector, sizes, dim=-1)
    batch = vector.shape[:-1]
    return {name: part.reshape(*batch, *p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


def assign(module: nn.Module, vector: Float[Tensor, "dim"]) -> None:
    """Write a vector into a module's parameters. Raises as :func:`unflatten`."""
    with torch.no_grad():
        for name, value in unflatten(module, vector).items():
            module.get_parameter(name).copy_(value)


def bind_population(module: nn.Module, vectors: Float[Tensor, "pop dim"]) -> Callable[..., Any]:
    """:func:`population_forward` with module and vectors fixed, for many calls: ``f(inputs, state)``.

    A module with a true attribute ``batched`` is copied once, with the population's parameters in the place of its
    own: each call then costs no more than a call of the module.

    Raises:
        ValueError: If :func:`unflatten` refuses the vectors.
    """
    if not getattr(module, "batched", False):
        return partial(population_forward, module, vectors)
    bound = copy.deepcopy(module)
    for name, value in unflatten(module, vectors).items():
        owner, _, leaf = name.rpartition(".")
        part = bound.get_submodule(owner)
        del part._parameters[leaf]
        setattr(part, leaf, value)  # as a plain tensor: parameters of a population are no leaves to be trained
    return bound


@torch.no_grad()
def population_forward(
    module: nn.Module,
    vectors: Float[Tensor, "pop dim"],
    inputs: Float[Tensor, "members n *features"],
    state: Any = None,
) -> Any:
    """Outputs of every member of a population on inputs of its own.

    Args:
        module: Gives the architecture and buffers; its parameters are not read. One with a true attribute
            ``batched`` is called once with the population's parameters, any other goes through ``vmap``.
        vectors: One parameter vector per member.
        inputs: Inputs per member; ``inputs.expand(pop, ...)`` shares one set without copying it.
        state: Recurrent state, a tensor or a pytree whose leaves lead with ``pop``; None calls ``module(inputs)``,
            anything else ``module(inputs, state)``.

    Returns:
        What the module returns, every tensor with a leading axis ``pop``. Without gradients.

    Raises:
        ValueError: If the leading axes differ, or :func:`unflatten` refuses the vectors.
    """
    if inputs.shape[0] != len(vectors):
        raise ValueError(
            f"inputs lead with {inputs.shape[0]}, vectors with {len(vectors)}; give inputs per member, or expand them"
        )
    params = unflatten(module, vectors)
    args = (params, inputs) if state is None else (params, inputs, state)
    if getattr(module, "batched", False):
        # What all members see is prepared once; the first product spreads it over them.
        shared = inputs[:1] if inputs.stride(0) == 0 else inputs
        return call_members(module, params, shared, *args[2:])
    if module not in _REJECTED:
        try:
            return call_members(module, *args)
        except (RuntimeError, ValueError) as error:
            # A module that is broken altogether fails in the loop as well, with its own message.
            result = _loop(module, args, len(vectors))
            _REJECTED.add(module)
            warnings.warn(
                f"{type(module).__name__} does not run under vmap and is evaluated one member at a time: "
                f"{str(error).splitlines()[0]}",
                SlowPopulationWarning,
                stacklevel=3,
            )
            return result
    return _loop(module, args, len(vectors))


def call_members(module: nn.Module, params: dict[str, Tensor], *args: Any) -> Any:
    """One call of a module with the parameters of a whole population: as it is if it is ``batched``, else by ``vmap``.

    Args:
        module: Gives the architecture and buffers.
        params: Parameters by name, with a leading axis for the members.
        args: What the module takes, with that axis as well.
    """

    def member(p: dict[str, Tensor], *rest: Any) -> Any:
        return functional_call(module, p, rest)

    return (member if getattr(module, "batched", False) else vmap(member, randomness="different"))(params, *args)


def _loop(module: nn.Module, args: tuple[Any, ...], pop: int) -> Any:
    pytree = torch.utils._pytree
    results = []
    for i in range(pop):
        params, *rest = pytree.tree_map(lambda leaf, i=i: leaf[i], args)
        results.append(functional_call(module, params, tuple(rest)))
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *results)
