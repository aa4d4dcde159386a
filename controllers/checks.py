"""Checks that every controller must pass; run them on your own controller before you enrol it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from steersman.controllers.base import Controller, Outcome, Training
from steersman.envs import noise
from steersman.envs.simulator import Measurement, Simulator

SPOILERS = (float("nan"), float("inf"), -float("inf"), 1e30, -1e6)
"""What :func:`spoil` writes into observations."""
ROUNDING = 4096
"""Units of rounding, of the largest action, by which a restart may move other rows: 1e-12 in double precision."""


class ControllerCheckError(AssertionError):
    """A controller breaks its contract; the message says which part and what to do."""


def check_controller(
    make: Callable[[], Controller],
    simulate: Callable[[int], Simulator],
    *,
    n: int = 4,
    steps: int = 3,
    fuzz: int = 8,
) -> None:
    """Check actions, determinism, restarts of rows, behaviour under spoiled observations, and saving.

    A row that is restarted must act as a new one does; the others must not move by more than rounding
    (:data:`ROUNDING`). Actions at their bounds hide what a law remembers: check it with settings that keep them inside.

    Args:
        make: Makes the controller, bound to the simulator's problem, not yet trained.
        simulate: Makes a simulator with the given number of rows.
        n: Rows; at least 2.
        steps: Control steps to run.
        fuzz: Spoiled batches to try.

    Raises:
        ControllerCheckError: At the first broken rule.
    """
    controller = make()
    controller.train(Training(simulate, seed=0))
    simulator = simulate(n)
    first = _run(controller, simulator, steps)
    _require(
        _close(first, _run(controller, simulator, steps)),
        "two runs after reset with equal generators differ: draw from the generator, and forget in reset",
    )
    _check_restart(controller, simulator, steps)
    check_fuzzed(controller, simulator, fuzz)
    restored = make()
    state = {name: tensor.clone() for name, tensor in controller.state_dict().items()}
    if state:
        restored.load_state_dict(state)
    _require(_close(first, _run(restored, simulator, steps)), "a restored controller acts differently")


def check_time_limit(
    controller: Controller, simulator: Simulator, budget_s: float, *, slack_s: float = 0.2, steps: int = 5
) -> None:
    """Require that ``act`` keeps a budget of wall time; the slack covers the part that cannot be interrupted.

    Raises:
        ControllerCheckError: If even the quickest of ``steps`` calls takes longer, or if any, the first included, works
            longer: of the time that passes, other programs may take a part, of the time worked none.
    """
    simulator.reset(simulator.scenarios(noise.keys(8, simulator.n)))
    controller.reset(simulator.n, gen=_generator())
    taken, worked = [], []
    for _ in range(steps):
        m = simulator.measure(controller.preview)
        began = time.thread_time()
        decision = controller.act(m, budget_s)
        worked.append(time.thread_time() - began)
        _check_decision(controller, m, decision.u, decision.outcome)
        taken.append(decision.seconds)
        simulator.step(decision.u)
    slowest = max(min(taken), *worked)
    _require(
        slowest <= budget_s + slack_s,
        f"act took {slowest:.2f} s with a budget of {budget_s} s: look at the clock between iterations",
    )


def spoil(m: Measurement, key: Tensor) -> Measurement:
    """A measurement with a random entry of about half the rows replaced by one of :data:`SPOILERS`."""
    ny = m.y.shape[1]
    pick = noise.integers(noise.fold(key, 1), 0, ny)
    value = m.y.new_tensor(SPOILERS)[noise.integers(noise.fold(key, 2), 0, len(SPOILERS))]
    hit = (noise.uniform(noise.fold(key, 3)) < 0.5)[:, None] & (torch.arange(ny) == pick[:, None])
    return replace(m, y=torch.where(hit, value[:, None], m.y))


def _generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _run(controller: Controller, simulator: Simulator, steps: int, *, scenarios: int = 5, draws: int = 1) -> Tensor:
    simulator.reset(simulator.scenarios(noise.keys(scenarios, simulator.n)))
    controller.reset(simulator.n, gen=_generator(draws))
    return _play(controller, simulator, steps)


def _play(controller: Controller, simulator: Simulator, steps: int) -> Tensor:
    """The actions of so many steps from here, ``[n steps m]``."""
    taken = []
    for _ in range(steps):
        m = simulator.measure(controller.preview)
        decision = controller.act(m)
        _check_decision(controller, m, decision.u, decision.outcome)
        taken.append(decision.u)
        simulator.step(decision.u)
    return torch.stack(taken, dim=1)


def _check_decision(controller: Controller, m: Measurement, u: Tensor, outcome: Tensor) -> None:
    actions = controller.problem.actions
    raised = [note for note in controller.notes if "failed to decide" in note]
    _require(not raised, " ".join(raised))
    _require(tuple(u.shape) == (m.n, actions.m), f"actions must be {(m.n, actions.m)}, got {tuple(u.shape)}")
    _require(bool(torch.isfinite(u).all()), "an action is not finite")
    _require(bool(actions.admissible(u).all()), "an action is not admissible")
    _require(tuple(outcome.shape) == (m.n,), f"outcome must be one per row, got {tuple(outcome.shape)}")


def _check_restart(controller: Controller, simulator: Simulator, steps: int) -> None:
    """A row restarted by mask must start as after a full reset, and leave the others as they would have been.

    The others may move by :data:`ROUNDING`: what is planned for fewer rows at once is rounded otherwise. Laws that draw
    may draw anew for a restarted row; whatever it was before must not matter to them either.
    """
    mask = torch.arange(simulator.n) == 0

    def after(past: int, restart: bool) -> Tensor:
        _run(controller, simulator, steps, scenarios=past)
        if restart:
            simulator.reset(simulator.scenarios(noise.keys(6, simulator.n)), mask)
            controller.reset(simulator.n, mask)
        return _play(controller, simulator, steps)

    untouched, restarted = after(5, False)[1:], after(5, True)
    moved = (restarted[1:] - untouched).abs().max()
    _require(
        bool(moved <= ROUNDING * torch.finfo(moved.dtype).eps * untouched.abs().max()),
        f"a restart of one row changed the actions of others by up to {float(moved):.2g}: "
        "keep plans, memory and random draws row by row",
    )
    _require(
        _close(restarted[0], after(9, True)[0]),
        "a restarted row acts by what it was before: clear the memory of masked rows in reset",
    )
    fresh, other = (_run(controller, simulator, steps, scenarios=6, draws=draws)[0] for draws in (1, 2))
    _require(
        not _close(fresh, other) or _close(restarted[0], fresh),
        "a restarted row does not start as after a full reset: let reset leave masked rows as new ones",
    )


def check_fuzzed(controller: Controller, simulator: Simulator, fuzz: int) -> None:
    """Show the controller ``fuzz`` spoiled batches, in two types of floating-point numbers.

    Raises:
        ControllerCheckError: If an action is not finite or not admissible, or hides that it is a fallback.
    """
    simulator.reset(simulator.scenarios(noise.keys(7, simulator.n)))
    controller.reset(simulator.n, gen=_generator())
    for i in range(fuzz):
        m = simulator.measure(controller.preview)
        bad = spoil(m, noise.keys(100 + i, simulator.n))
        decision = controller.act(bad)
        _check_decision(controller, m, decision.u, decision.outcome)
        unseen = ~torch.isfinite(bad.y).all(dim=1)
        _require(
            bool((decision.outcome[unseen] != Outcome.OPTIMAL).all()),
            "a row without a finite observation must say that its action is a fallback",
        )
        single = controller.act(replace(m, y=m.y.to(torch.float32)))
        _check_decision(controller, m, single.u, single.outcome)
        simulator.step(decision.u)


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding: BLAS chooses the order of summation by the layout of memory."""
    return torch.allclose(a, b, rtol=1e-6, atol=1e-6)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ControllerCheckError(message)
