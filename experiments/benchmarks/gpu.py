"""Policies trained on a GPU against one core of the CPU beside it: whole generations of a search, end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search.evaluation import Episodes, Evaluation, InProcess
from steersman.controllers.policy_search.population import Population
from steersman.envs import make_simulator
from steersman.envs.placement import synchronise
from steersman.envs.simulator import Simulator
from steersman.experiments.benchmarks.base import Progress, Row
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.vectorise import flatten

CASES = (
    ("CartPole-v1", "mlp"), ("CartPole-v1", "int8"), ("CartPole-v1", "binary"), ("CartPole-v1", "spiking"),
    ("SEIRNetwork-v1", "int8"), ("TwoArea-v1", "int8"), ("KuramotoSivashinsky-v1", "int8"),
)  # fmt: skip
"""Plants, one of each family, and policies."""
SIZES = (2**8, 2**10, 2**13)
"""Policies of a generation, each on :data:`SCENARIOS` episodes."""
CORE = 2**8
"""Policies of a generation on the CPU: what one core evaluates fastest, about."""
SCENARIOS = 4
HIDDEN = (64, 64)
"""Enough parameters for as many directions as the largest generation has pairs."""
BAR = 20.0
"""Of the largest generation that fits; smaller ones are shown."""
SECONDS = 2.0
"""Least time of a measurement."""


def rows(
    progress: Progress,
    device: str = "cuda",
    cases: Sequence[tuple[str, str]] = CASES,
    sizes: Sequence[int] = SIZES,
) -> Iterator[Row]:
    """Policies per second of wall time: asked for, run for whole episodes, their costs told, by PolyStep.

    Raises:
        RuntimeError: If there is no GPU.
    """
    cuda = torch.device(device).type == "cuda"
    if cuda and not torch.cuda.is_available():
        raise RuntimeError("not run: benchmark 'gpu' needs a CUDA device and there is none; run it where one is")
    card = torch.cuda.get_device_name(device) if cuda else "the CPU"
    for i, (plant, policy) in enumerate(cases):
        progress(i / len(cases), f"{plant}, {policy}, on the CPU")
        core = _rate(f"steersman/{plant}", policy, min(CORE, *sizes), "cpu")
        found: list[tuple[int, float]] = []
        for j, n in enumerate(sizes):
            progress((i + (j + 1) / (len(sizes) + 1)) / len(cases), f"{plant}, {n:,} {policy} policies on {card}")
            try:
                found.append((n, _rate(f"steersman/{plant}", policy, n, device)))
            except torch.OutOfMemoryError:
                break
        for n, rate in found:
            bar = BAR if n == found[-1][0] else 0.0
            yield Row(f"{plant}, {n:,} {policy} on {card}", "policies / s", rate, core, "one core of the CPU", bar)


def _rate(id: str, policy: str, population: int, device: str) -> float:
    """Policies per second of whole generations; the first one warms up."""
    generation = Generation(id, policy, population, device)
    generation()
    done, begun = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begun) < SECONDS or not done:
        done += generation()
    return done / seconds


class Generation:
    """A search whose generations are run one after the other, each to its end."""

    def __init__(self, id: str, policy: str, population: int, device: str) -> None:
        """Begin at a fresh policy.

        Args:
            id: Plant.
            policy: Architecture.
            population: Policies of a generation, an even number.
            device: Where everything lies.
        """
        self.device = torch.device(device)

        def simulate(n: int) -> Simulator:
            # With a price of failures, which a step would else stop to look for.
            return make_simulator(id, n, device, price=1.0)

        problem = simulate(1).problem
        network = build_policy(policy, problem.ny, problem.actions.m, HIDDEN, 0).to(self.device)
        network.rest()
        like = flatten(network)
        mean, std = (fill(1, problem.ny, dtype=like.dtype, device=self.device) for fill in (torch.zeros, torch.ones))
        episodes = Episodes(Population(network, like[None], mean, std, problem.actions), simulate, 0)
        self.search = FrameStep(directions=population // 2).start(like, seed=0)
        self.evaluate = Evaluation(episodes, InProcess(episodes), SCENARIOS, 0, 1.0)
        self._points: torch.Tensor | None = None

    def __call__(self) -> int:
        """Ask, run, tell, and wait for the end; how many policies that were."""
        self._points = self.search.ask(self._points)
        self.search.tell(self.evaluate(self._points, self.search.generation))
        synchronise(self.device)
        return len(self._points)
