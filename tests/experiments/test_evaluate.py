"""Evaluation by hand: what a controller is shown, what an episode costs, and what is counted and recorded."""

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.controllers.base import Controller, Decision, Outcome
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant, Status
from steersman.envs.simulator import Measurement, PlantSimulator
from steersman.experiments.comparison.evaluate import Evaluation, evaluate, latency

HORIZON = 6


class Follower(Plant):
    """``x+ = x + u`` from 0, the reference is the control step; violated above 6.5, at a price of 10 a step."""

    gradient = "exact"

    def __init__(self) -> None:
        self.dt, self.hold, self.horizon = 0.5, 1, HORIZON
        self.actions = ActionSet((-9.0,), (9.0,))
        self.objective = Objective((Quadratic(name="e", on="e", weights=(1.0,)),), failure=10.0)
        self.measured = self.performed = ("x",)
        self.constrained = ("above two",)

    def params(self, key: Tensor) -> dict[str, Tensor]:
        return {}

    def initial(self, key: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(key), 1, dtype=self.dtype)

    def step(self, k: Tensor, x: Tensor, u: Tensor, w: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x + u

    def measure(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x

    def reference(self, k: Tensor, p: dict[str, Tensor]) -> Tensor:
        return k[:, None].to(self.dtype)

    def constraints(self, k: Tensor, x: Tensor, u: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return x - 2

    def status(self, k: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return torch.where(x[:, 0] > 6.5, int(Status.VIOLATED), int(Status.OK)).to(torch.uint8)


class Scripted(Controller):
    """Row i adds ``pace[i]`` in every step, as an incumbent from the third step on; keeps what it was shown."""

    name = "scripted"
    preview = 3

    def __init__(self, *pace: float) -> None:
        self.pace = torch.tensor(pace, dtype=torch.float64)[:, None]
        self.shown: list[Measurement] = []

    def reset(self, n: int, mask: Tensor | None = None, *, gen: torch.Generator | None = None) -> None:
        super().reset(n, mask, gen=gen)
        self.shown = []

    def decide(self, m: Measurement, budget_s: float | None) -> Decision:
        late = len(self.shown) >= 2
        self.shown.append(m)
        return Decision(self.pace[: m.n], torch.full((m.n,), int(Outcome.INCUMBENT if late else 0), dtype=torch.uint8))


def evaluated(
    controller: Controller, n: int, preview: bool = True, recorded: int = 2
) -> tuple[Evaluation, list[float]]:
    plant, told = Follower(), []
    controller.bind(plant.problem)
    simulator = PlantSimulator(plant, n)
    found = evaluate(
        controller, simulator, noise.keys(0, n), recorded=recorded, preview=preview, progress=lambda f, text: told.append(f)
    )  # fmt: skip
    return found, told


@pytest.mark.parametrize("preview", [True, False])
def test_a_controller_sees_the_references_ahead_only_if_it_may(preview: bool) -> None:
    controller = Scripted(1.0)
    evaluated(controller, 1, preview)
    want = [[float(k + j) for j in range(4 if preview else 1)] for k in range(HORIZON)]
    assert [m.r[0, :, 0].tolist() for m in controller.shown] == want
    latency(controller, PlantSimulator(Follower(), 1), noise.keys(0, 1), preview=preview)
    assert [m.r[0, :, 0].tolist() for m in controller.shown] == want, "it is timed with what it is judged with"


def test_costs_steps_and_outcomes_by_hand() -> None:
    """Pace 1 follows exactly; pace 2 is violated after four steps: errors 0, 1, 2, 3 and a price for the 3 steps left."""
    found, told = evaluated(Scripted(1.0, 2.0, 0.0), 3)
    assert found.cost.tolist() == [0.0, 0 + 1 + 4 + 9 + 3 * 10, 0 + 1 + 4 + 9 + 16 + 25]
    assert found.steps.tolist() == [6, 4, 6]
    assert found.status.tolist() == [Status.OK, Status.VIOLATED, Status.OK]
    assert found.violation.tolist() == [0.5 * (1 + 2 + 3), 0.5 * (2 + 4), 0.0]
    counts = torch.zeros(3, len(Outcome), dtype=torch.int64)
    counts[:, 0], counts[:, 1] = 2, torch.tensor([4, 2, 4])
    assert torch.equal(found.outcomes, counts), "decisions after the end of a row are not counted"
    assert found.inadmissible == 0 and told[-1] == 1.0 and len(told) == 6
    assert found.trail is not None and len(found.trail.u) == 6 and len(found.trail.x) == 7


def test_an_evaluation_ends_with_its_last_row() -> None:
    found, told = evaluated(Scripted(7.0, 4.0), 2)
    assert found.steps.tolist() == [1, 2] and told == [pytest.approx(1 / 6), pytest.approx(2 / 6)]
    assert found.trail is not None and len(found.trail.u) == 1, "the film is of the first row"


def test_what_is_recorded_ends_with_its_row() -> None:
    found, _ = evaluated(Scripted(0.5, 2.0, 0.0), 3)
    z, r, u = (part[..., 0] for part in (found.episodes.z, found.episodes.r, found.episodes.u))
    nan = np.nan
    np.testing.assert_array_equal(z, [[0, 0.5, 1, 1.5, 2, 2.5, 3], [0, 2, 4, 6, nan, nan, nan]])
    np.testing.assert_array_equal(u, [[0.5] * 6, [2, 2, 2, 2, nan, nan]])
    np.testing.assert_array_equal(r, [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, nan, nan, nan]])
    short, _ = evaluated(Scripted(7.0), 1, recorded=4)
    assert short.episodes.z.shape == (1, 7, 1) and short.episodes.u.shape == (1, 6, 1)
    np.testing.assert_array_equal(short.episodes.u[0, :, 0], [7] + [nan] * 5)


class Wild(Scripted):
    """Its actions leave the set behind the back of ``act``."""

    name = "wild"

    def act(self, m: Measurement, budget_s: float | None = None) -> Decision:
        decision = super().act(m, budget_s)
        return Decision(decision.u + 100, decision.outcome, decision.seconds)


def test_inadmissible_actions_of_running_rows_are_counted() -> None:
    found, _ = evaluated(Wild(0.0, 0.0), 2)
    assert found.inadmissible == 2, "both rows fail in the first step"


def test_latency_is_of_single_rows() -> None:
    with pytest.raises(ValueError, match="timed at n = 1, got a simulator of 2 rows"):
        latency(Scripted(1.0, 1.0), PlantSimulator(Follower(), 2), noise.keys(0, 2), preview=True)
    plant = Follower()
    found = latency(Scripted(1.0).bind(plant.problem), PlantSimulator(plant, 1), noise.keys(0, 1), preview=True)
    assert 0 < found.p50 <= found.p95 <= found.max


def test_equal_scenarios_have_equal_hashes() -> None:
    one, other = evaluated(Scripted(1.0), 1)[0], evaluated(Scripted(2.0), 1)[0]
    assert one.bank == other.bank and one.seconds > 0
