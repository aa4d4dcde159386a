"""Control steps of a population as one compiled function: policies, plant and costs in a few fused kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steersman.controllers.neural.policy import member_actions
from steersman.envs.objective import Objective
from steersman.envs.plant import Plant
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSnapshot, advance
from steersman.envs.tree import tree_leaves
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.vectorise import call_members

STRIDE = 4
"""Control steps of a call: what a call costs beside its kernels is then small even for a few hundred rows."""
_PRIME = (31, 37)
"""Members and episodes of the first call. The compiler takes sizes that are equal then for equal ever after, so that
these should be unlike the widths of a policy."""
_AGREE = 0.99
"""Share of rows in which the first call must agree with the uncompiled steps."""


@dataclass(frozen=True)
class Batch:
    """Members times episodes in progress; rows of one member follow each other.

    Attributes:
        now: State of the plant.
        memory: Memory of the policies.
        running: Rows whose episode goes on.
        cost: Cost of each row so far.
        steps: Control steps of each row so far.
    """

    now: PlantSnapshot
    memory: Float[Tensor, "pop width memory"]
    running: Bool[Tensor, "rows"]
    cost: Float[Tensor, "rows"]
    steps: Int64[Tensor, "rows"]


class CompiledSteps:
    """:data:`STRIDE` control steps of a batch, compiled at the first call, for any number of rows afterwards.

    Compiling takes seconds, or minutes where a control step holds many steps of an integrator, and needs a C++ compiler
    (on a GPU, Triton). Numbers equal those of the uncompiled steps up to rounding. Populations of one member, and
    single episodes of each, are not compiled for: the compiler treats a size of one as another function.
    """

    def __init__(self, network: Policy, plant: Plant, objective: Objective) -> None:
        """Store what is compiled for; the objective holds the price of failures."""
        self.network, self.plant, self.objective = network, plant, objective
        self._call: Callable[..., tuple[Batch, Tensor]] | None = None

    def __call__(
        self,
        params: dict[str, Tensor],
        mean: Float[Tensor, "pop 1 ny"],
        std: Float[Tensor, "pop 1 ny"],
        batch: Batch,
    ) -> tuple[Batch, bool]:
        """The batch some steps on, and whether a running episode ended.

        Args:
            params: Parameters by name, contiguous, with a leading axis for the members.
            mean: Subtracted from outputs.
            std: Outputs are divided by it.
            batch: At least two members with at least two episodes each.

        Raises:
            RuntimeError: If the policy or the plant cannot be compiled, or there is no compiler.
        """
        if self._call is None:
            self._call = self._compile(params, mean, std, batch)
        # The start is not needed any more, and with it the batch would be of another kind.
        scenario = Scenarios(batch.now.scenario.key, batch.now.scenario.p)
        batch = replace(batch, now=replace(batch.now, scenario=scenario))
        after, over = self._call(params, mean, std, batch)
        return after, bool(over)

    def _compile(
        self, params: dict[str, Tensor], mean: Tensor, std: Tensor, batch: Batch
    ) -> Callable[..., tuple[Batch, Tensor]]:
        network, plant, objective = self.network, self.plant, self.objective

        def steps(params: dict[str, Tensor], mean: Tensor, std: Tensor, batch: Batch) -> tuple[Batch, Tensor]:
            before = batch.running
            for _ in range(STRIDE):
                batch = _control_step(network, plant, objective, params, mean, std, batch)
            return batch, (before != batch.running).any()

        # A code object of its own: the compiler refuses the ninth version of one, and each policy is a version.
        steps.__code__ = steps.__code__.replace()
        made: Callable[..., tuple[Batch, Tensor]] = torch.compile(steps, fullgraph=True)
        members = torch.arange(_PRIME[0], device=mean.device) % len(mean)
        few = {name: part[members] for name, part in params.items()}
        first = few, mean[members], std[members], _enlarged(batch)
        _let_vary(*first)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on caches that the compiler looks through, which is right
                found, wanted = made(*first)[0], steps(*first)[0]
        except RuntimeError as error:
            raise RuntimeError(
                f"policy {type(network).__name__} on {type(plant).__name__} cannot be compiled; set compiled=False, or "
                f"install a C++ compiler if that is what is missing: {str(error).splitlines()[0]}"
            ) from error
        if (share := _agreement(found, wanted)) < _AGREE:
            raise RuntimeError(
                f"compiled steps of policy {type(network).__name__} on {type(plant).__name__} agree with the others in "
                f"{share:.0%} of the rows only; set compiled=False"
            )
        return made


def _let_vary(params: dict[str, Tensor], mean: Tensor, std: Tensor, b: Batch) -> None:
    """Tell the compiler which sizes will be others: those of population and batch, not those of networks and plants."""
    now = b.now
    rows = [*tree_leaves(now.x), *tree_leaves(now.scenario.p), now.scenario.key, now.k, now.status, now.u_prev]
    for t in (*params.values(), mean, std, b.memory, *rows, b.running, b.cost, b.steps):
        torch._dynamo.mark_dynamic(t, 0)
    torch._dynamo.mark_dynamic(b.memory, 1)


def _agreement(a: Batch, b: Batch) -> float:
    """Share of rows that went the same way; rounding may turn single decisions."""
    pairs = list(zip(tree_leaves(a.now.x), tree_leaves(b.now.x), strict=True))
    pairs += [(a.now.u_prev, b.now.u_prev), (a.now.status, b.now.status), (a.now.k, b.now.k), (a.cost, b.cost)]
    close = [torch.isclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True).reshape(len(x), -1).all(1) for x, y in pairs]
    return float(torch.stack(close).all(dim=0).double().mean())


def _control_step(
    network: Policy,
    plant: Plant,
    objective: Objective,
    params: dict[str, Tensor],
    mean: Tensor,
    std: Tensor,
    b: Batch,
) -> Batch:
    y = plant.measure(b.now.k, b.now.x, b.now.scenario.p)
    forward = partial(call_members, network, params)
    u, memory = member_actions(forward, plant.actions, mean, std, y.reshape(*b.memory.shape[:2], -1), b.memory)
    now, t = advance(plant, b.now, u, objective)
    cost = b.cost + torch.where(b.running, t.cost, 0.0)
    return Batch(now, memory, b.running & ~t.ended, cost, b.steps + b.running)


def _enlarged(b: Batch) -> Batch:
    """The same rows over and over, as many as the first call has."""
    pop, width = (torch.arange(size) % have for size, have in zip(_PRIME, b.memory.shape[:2], strict=True))
    rows = (pop[:, None] * b.memory.shape[1] + width).flatten().to(b.cost.device)
    memory = b.memory.flatten(0, 1)[rows].reshape(*_PRIME, -1)
    return Batch(b.now.rows(rows), memory, b.running[rows], b.cost[rows], b.steps[rows])
