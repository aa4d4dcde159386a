"""A pretended card: real numbers in the CPU's memory that torch takes to lie on ``cuda:0``.

What lies "there" is computed by the CPU's kernels, so code whose way depends on data runs as it is; what a GPU would
refuse is refused (operands on two devices, numpy, a generator of the other device), and everything for which a GPU
would make the host wait is written down: numbers read, copies between the memories, sizes that depend on data.
``FakeTensorMode`` is no substitute: it has no numbers to branch on, and without CUDA a backward pass of its "cuda"
tensors ends the process.

Limits: nothing runs late, kernels that CUDA lacks are not missed, numbers round as the CPU's do, and neither
``torch.compile``, nor inference mode, nor code that reads memory by its address (numba) can run on what lies there;
forward-mode derivatives of what lies on the CPU end the process as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

CARD = torch.device("cuda:0")
_INSIDE = torch.device("meta")
"""What torch is told instead of :data:`CARD`: a device that every build has, and autograd needs no streams for."""
_ROOT = Path(__file__).resolve().parents[2]
_aten: Any = torch.ops.aten
_Generator = torch.Generator
_Property = type(Tensor.device.__get__)  # type: ignore[attr-defined]


class DeviceError(AssertionError):
    """Something that a GPU would refuse."""


@dataclass(frozen=True)
class Wait:
    """Why the host would wait for the card, and where it was asked to: lines of this project, the innermost last."""

    what: str
    where: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} at {' < '.join(reversed(self.where))}"


class OnCard(Tensor):
    """A tensor on the card."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnCard:
        t: OnCard = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=_INSIDE
        )
        t.raw = raw
        return t

    def __repr__(self) -> str:
        return f"OnCard({self.raw!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise DeviceError(f"{func} on a tensor of a card that is not there any more")


class _Drawn(_Generator):
    """``torch.Generator``, of the card too."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return super().__new__(cls, "cpu") if _is_card(device) else _Generator(device)

    device = property(lambda self: CARD)  # type: ignore[assignment]


class Card(TorchFunctionMode):
    """The card, while the context lasts.

    Attributes:
        waits: What the host would have waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for where, name, what in (
            (torch, "Generator", _Drawn),
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "get_device_name", lambda device=None: "a pretended card"),
            (torch.cuda, "synchronize", lambda device=None: self.wait("synchronize")),
        ):
            self._stack.enter_context(patch.object(where, name, what))
        self._stack.enter_context(_Kernels(self))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def wait(self, what: str) -> None:
        """Write down that the host waits here."""
        self.waits.append(Wait(what, _lines()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Names of devices, which torch must not see: it would look for CUDA."""
        if type(func) is _Property:
            found = func(*args)
            if found == _INSIDE and func == Tensor.device.__get__:  # type: ignore[attr-defined]
                return CARD
            if found is False and func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
                return args[0].device == _INSIDE
            return found
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.tolist:
            return func(args[0].cpu())
        if func is Tensor.cuda:
            return args[0].to(CARD)
        if func is Tensor.new_tensor:
            func, like, args = torch.tensor, args[0], args[1:]
            kwargs = {"dtype": like.dtype, "device": like.device} | kwargs
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == _INSIDE:
            args = (args[0], _on_card(args[1]), *args[2:])
        if (gen := kwargs.get("generator")) is not None:
            at = args[0].device if args and isinstance(args[0], Tensor) else "cpu"
            if _is_card(kwargs.get("device") or at) != isinstance(gen, _Drawn):
                raise DeviceError(f"{func.__name__} draws from a generator on {gen.device}")
        args = tuple(_INSIDE if isinstance(a, torch.device | str) and _is_card(a) else a for a in args)
        if kwargs.get("device") is not None and _is_card(kwargs["device"]):
            kwargs["device"] = _INSIDE
            if func in (torch.tensor, torch.as_tensor):  # which would forget the numbers
                return func(*args, **kwargs | {"device": None}).to(_INSIDE)
        return func(*args, **kwargs)


class _Kernels(TorchDispatchMode):
    """Runs what is asked of tensors on the card, on the CPU."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its import takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        here, target = any(type(t) is OnCard for t in tensors), kwargs.get("device")
        there = here if target is None else torch.device(target) == _INSIDE
        if any(type(t) is not OnCard and t.device == _INSIDE for t in tensors):
            raise NotImplementedError(
                f"{func} takes a tensor whose numbers torch has thrown away: teach Card that call"
            )
        if not (here or there):
            return func(*args, **kwargs)
        # Their results would not be known as conjugate or negative views any more.
        func = _PLAIN.get(func, func)
        if reason := _JUDGES.get(func, _judge)(func, args, kwargs, tensors, there):
            self._card.wait(reason)
        plain = {"device": torch.device("cpu")} if target is not None else {}
        out = func(*_map(_raw, args), **_map(_raw, kwargs) | plain)
        if not there:
            return out
        out = _map(_wrapped, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if here else out


_PLAIN = {_aten._conj.default: _aten._conj_physical.default, _aten._neg_view.default: _aten.neg.default}


def _judge(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> str:
    """Refuse operands on two devices; only a number may come from the CPU."""
    away = [tuple(t.shape) for t in tensors if type(t) is not OnCard and (t.dim() or func in _STRICT)]
    if away and any(type(t) is OnCard for t in tensors):
        raise DeviceError(f"{func} takes tensors on the card and on the CPU, those of shapes {away}")
    return ""


def _waits(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> str:
    return _judge(func, args, kwargs, tensors, there) or f"{func}"


def _copies(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> str:
    sides = {type(t) is OnCard for t in tensors} | ({there} if func is _aten._to_copy.default else set())
    return "a copy between the memories" if len(sides) > 1 else ""


def _indexes(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> str:
    """Indices may come from the CPU; masks are counted first, but for the writing of a single number."""
    index = [i for i in args[1] if i is not None]
    put = args[2:3]
    if type(args[0]) is not OnCard or any(type(t) is not OnCard and t.dim() for t in put):
        raise DeviceError(f"{func} takes tensors on the card and on the CPU")
    if any(type(i) is not OnCard for i in index):
        return "an index from the CPU"
    counted = any(i.dtype in (torch.bool, torch.uint8) for i in index)
    return "an index by a mask" if counted and not any(t.numel() == 1 for t in put) else ""


def _repeats(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> str:
    return "" if kwargs.get("output_size") is not None else _waits(func, args, kwargs, tensors, there)


_STRICT = {_aten.cat.default, _aten.stack.default, _aten.mm.default, _aten.bmm.default, _aten.mv.default}
_JUDGES: dict[Any, Callable[..., str]] = {
    _aten._to_copy.default: _copies,
    _aten.copy_.default: _copies,
    _aten.index.Tensor: _indexes,
    _aten.index_put.default: _indexes,
    _aten.index_put_.default: _indexes,
    _aten._index_put_impl_.default: _indexes,
    _aten.repeat_interleave.Tensor: _repeats,
} | dict.fromkeys(
    (
        _aten._local_scalar_dense.default,
        _aten.is_nonzero.default,
        _aten.equal.default,
        _aten.nonzero.default,
        _aten.masked_select.default,
        _aten._unique2.default,
        _aten.bincount.default,
        _aten._linalg_check_errors.default,
        _aten._linalg_eigh.default,
        _aten.linalg_eig.default,
        _aten._linalg_svd.default,
        _aten.linalg_lstsq.default,
    ),
    _waits,
)
"""What a GPU does otherwise than with all operands on it, and without a word to the host."""


def _is_card(device: torch.device | str) -> bool:
    return str(device).partition(":")[0] in ("cuda", "meta")


def _on_card(index: Any) -> Any:
    """An index whose lists and arrays are tensors on the card, where torch would put them."""
    if isinstance(index, tuple):
        return tuple(_on_card(part) for part in index)
    if not isinstance(index, list | np.ndarray):
        return index
    found = torch.as_tensor(index)
    return (found if found.numel() else found.long()).to(_INSIDE)


def _raw(t: Tensor) -> Tensor:
    return t.raw if type(t) is OnCard else t


def _wrapped(t: Tensor) -> Tensor:
    return t if type(t) is OnCard else OnCard(t)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for part in tree:
            yield from _tensors(part)
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))


def _map(f: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return f(tree)
    if type(tree) in (tuple, list):
        return type(tree)([_map(f, part) for part in tree])
    return {name: _map(f, part) for name, part in tree.items()} if isinstance(tree, dict) else tree


@cache
def _ours(file: str) -> str:
    """A file's name in this project, tests aside; empty for all others."""
    path = Path(file).resolve()
    name = str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else ""
    return "" if name.startswith(("tests", ".venv")) else name


def _lines() -> tuple[str, ...]:
    """Where the project is being executed, the innermost last; neither this file nor a test."""
    found: list[str] = []
    frame = sys._getframe(1)
    while frame is not None and len(found) < 4:
        if name := _ours(frame.f_code.co_filename):
            found.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(reversed(found))
