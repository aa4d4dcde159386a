"""A trained policy as an ONNX file: what is measured goes in, the admissible action comes out."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from steersman.controllers.base import Controller
from steersman.controllers.neural.policy import TrainedPolicy
from steersman.envs.importing import needed
from steersman.experiments.exported.controller import read_controller

NAME = "controller.onnx"
"""Name of the file beside a controller's description."""
EXACT = 1e-6
"""Largest difference of an action of the file, relative to ``1 + |u|``, before it is refused."""
_TRIED = 256
"""Random observations that a file is tried on."""
_INPUTS, _OUTPUTS = ("observation", "memory"), ("action", "memory_after")


def to_onnx(folder: Path | str, path: Path | str | None = None) -> Path:
    """Write the policy of a controller's folder as an ONNX file, and try it against the controller.

    The file takes ``observation [n, ny]``, in double precision and the order of ``problem.measured``, and gives
    ``action [n, m]``: scaled, squashed, projected on the bounds, rounded where actions are integer, and neutral in rows
    where an output is NaN, as :func:`~steersman.experiments.exported.load_controller` does. A policy with a memory also
    takes ``memory [n, k]``, zeros at the start of an episode, and gives ``memory_after``, to be handed in next time; it
    ends in the last outputs that were measured, which stand in for those that are NaN. Names of outputs and actions,
    bounds and the period stand in the metadata, as JSON under ``steersman``.

    Args:
        folder: The controller's folder, or the description in it.
        path: File to write; by default ``controller.onnx`` beside the description.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is no such controller.
        ValueError: If the controller is no trained policy, holds what ONNX has no form for, or acts otherwise there.
        ImportError: Without the packages of the extra ``export``, which the message names.
    """
    require_onnx()
    law, _ = read_controller(folder)
    if path is None:
        path = (Path(folder) if Path(folder).is_dir() else Path(folder).parent) / NAME
    return write_onnx(law, Path(path))


def require_onnx() -> None:
    """Raises: ImportError: If a package is missing; the message names the extra."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, "export", "an ONNX file")


def write_onnx(law: Controller, path: Path) -> Path:
    """The same for a controller at hand, bound and trained.

    Raises:
        ValueError, ImportError: As :func:`to_onnx`.
    """
    require_onnx()
    if not isinstance(law, TrainedPolicy):
        raise ValueError(f"{law.name} has no ONNX form; policies of neural, imitation and policy-search have one")
    graph = _Graph(law).eval()
    problem = law.problem
    given = _observations(law, graph.width, 2)
    with torch.no_grad():
        graph(*given)  # bounds are tensors that are made once, and must not be made of a tracer's
    rows = torch.export.Dim("n")
    names = _INPUTS[: len(given)], _OUTPUTS[: len(given)]
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                graph, given, dynamo=True, verbose=False, input_names=names[0], output_names=names[1],
                dynamic_shapes=tuple({0: rows} for _ in given), custom_translation_table=_translations(),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"the {law.policy!r} policy of {law.name} has no ONNX form: {_reason(error)}; choose another policy, such "
            "as 'mlp' or 'gru'"
        ) from error
    told = {
        "measured": problem.measured, "actions": problem.actions.names, "period": problem.period,
        "time_unit": problem.time_unit, "memory": graph.width,
        "lower": list(map(str, problem.actions.lower)), "upper": list(map(str, problem.actions.upper)),
    }  # fmt: skip
    program.model.metadata_props["steersman"] = json.dumps(told)
    draft = path.with_name(f"{path.name}.draft")
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(draft), external_data=False)
    try:
        require_equal(draft, law)
    except ValueError:
        draft.unlink()
        raise
    return draft.replace(path)


class _Graph(nn.Module):
    """What a decision is, from one observation and memory to the next; see :meth:`Controller.act`."""

    def __init__(self, law: TrainedPolicy) -> None:
        super().__init__()
        self.policy = law.network
        self.law = law
        # Only who remembers needs to know what was last seen.
        self.width = law.network.memory + law.problem.ny if law.network.memory else 0

    def forward(self, observation: Tensor, memory: Tensor | None = None) -> tuple[Tensor, ...]:
        actions, seen = self.law.problem.actions, torch.isfinite(observation)
        own, last = self._parts(observation, memory)
        y = torch.where(seen, observation, last)
        u, own = self.law.respond(y, own)
        good = seen.all(dim=1, keepdim=True) & torch.isfinite(u).all(dim=1, keepdim=True)
        u = actions.project(torch.where(good, u, actions.neutral(1, observation)))
        return (u,) if memory is None else (u, torch.cat([own.to(y), y], dim=1))

    def _parts(self, observation: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """The policy's own memory, and the outputs that were last seen."""
        if memory is None:
            return observation[:, :0], torch.zeros_like(observation)
        width = self.policy.memory
        return memory[:, :width].to(next(self.policy.parameters())), memory[:, width:]


def _observations(law: TrainedPolicy, memory: int, n: int) -> tuple[Tensor, ...]:
    """Random observations about those that the policy has learned from, one with a gap, and memories."""
    gen = torch.Generator().manual_seed(0)
    y = law.centre + 2 * law.scale * torch.randn(n, law.problem.ny, generator=gen, dtype=torch.float64)
    if n > 2:
        y[-1, -1] = torch.nan
    held: Float[Tensor, "n memory"] = torch.rand(n, memory, generator=gen, dtype=torch.float64) - 0.5
    return (y, held) if memory else (y,)


def require_equal(path: Path, law: TrainedPolicy) -> None:
    """Refuse a file that acts otherwise than a controller.

    Args:
        path: The file.
        law: The controller, bound and trained.

    Raises:
        ValueError: If the file cannot be run, or differs by more than :data:`EXACT` on random observations.
        ImportError: Without onnxruntime.
    """
    runtime = needed("onnxruntime", "export", "an ONNX file")
    graph = _Graph(law).eval()
    given = _observations(law, graph.width, _TRIED)
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = session.run(None, dict(zip(_INPUTS, (x.numpy() for x in given), strict=False)))
    except Exception as error:  # the runtime's errors have no public type
        raise ValueError(f"the policy's ONNX form cannot be run: {_reason(error)}; choose another policy") from error
    with torch.no_grad():
        wanted = graph(*given)
    for name, got, want in zip(_OUTPUTS, found, (x.numpy() for x in wanted), strict=False):
        off = np.abs(got - want) / (1 + np.abs(want))
        if not (off <= EXACT).all():
            raise ValueError(
                f"the ONNX form of policy {law.policy!r} differs from it by {off.max():.3g} in {name}, which is more "
                "than rounding; choose another policy"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracer's own deprecations, and its remarks on packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _translations() -> dict[Any, Any]:
    """Operations that the runtime has no double precision of, in others that it has: softplus."""
    op = needed("onnxscript", "export", "an ONNX file").opset18

    def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
        tail = op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), op.CastLike(1.0, x)))
        return op.Add(op.Relu(x), tail)

    return {torch.ops.aten.softplus.default: softplus}


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]
