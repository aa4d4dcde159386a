"""Step sizes of the searches by hand: debiased paths and moments, factors of the radius rules, gains of SPSA."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steersman.optimizers.ars import ARS
from steersman.optimizers.champion import Champion
from steersman.optimizers.evolution import OpenAIES
from steersman.optimizers.polystep.control import NOTHING, Evidence, PathLength, Scheduled, TrustRegion
from steersman.optimizers.polystep.driver import PolytopeSearch
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.weighting import Greedy
from steersman.optimizers.spsa import SPSA

F64 = torch.float64


def path_lengths(make: type[PolytopeSearch], generations: int, seed: int, **more: object) -> list[float]:
    """Lengths of the evolution path in the face of noise alone."""
    seen: list[float] = []

    class Spy(PathLength):
        def judge(self, multiplier: float, evidence: Evidence):  # type: ignore[no-untyped-def, override]
            seen.append(evidence.path)
            return replace(super().judge(multiplier, evidence), multiplier=1.0)

    search = make(control=Spy(), confirmations=0, **more).start(torch.zeros(12, dtype=F64), seed=seed)
    gen = torch.Generator().manual_seed(seed)
    for _ in range(generations):
        search.tell(torch.rand(len(search.ask()), generator=gen, dtype=F64))
    return seen


@pytest.mark.parametrize(("make", "more"), [(FrameStep, {"directions": 12}), (FrameStep, {}), (PolyStep, {"block": 3})])
def test_a_path_of_noise_has_length_one_from_the_first_generation_on(make: type[PolytopeSearch], more: dict) -> None:  # type: ignore[type-arg]
    """The mean square is 1 in each generation: the path starts at zero, and is divided by what chance has made of it."""
    squares = torch.tensor([path_lengths(make, 6, seed, **more) for seed in range(120)], dtype=F64).square()
    error = squares.std(dim=0) / math.sqrt(len(squares))
    assert bool(((squares.mean(dim=0) - 1).abs() < 4 * error).all())
    assert float(error.max()) < 0.12


def test_the_first_path_is_the_first_step_in_units_of_chance() -> None:
    """A jump to one vertex of an orthoplex has length 1; weights of one winner have (V - 1) / (V - 1) = 1: so 1."""
    assert path_lengths(FrameStep, 1, 0, directions=12, weighting=Greedy()) == pytest.approx([1.0])


def test_path_length_rule() -> None:
    rule = PathLength(damping=2.0)
    assert rule.judge(1.0, Evidence(0.0, 0.0, 0.0, path=1.0, rate=0.3)).multiplier == 1.0
    assert rule.judge(1.0, Evidence(0.0, 0.0, 0.0, path=1.8, rate=0.3)).multiplier == pytest.approx(
        math.exp(0.15 * 0.8)
    )
    assert rule.judge(1.0, Evidence(0.0, 0.0, 0.0, path=0.2, rate=0.3)).multiplier == pytest.approx(
        math.exp(-0.15 * 0.8)
    )
    assert rule.judge(1.0, Evidence(0.0, 0.0, 0.0, path=99.0, rate=0.3)).multiplier == pytest.approx(math.e), (
        "at most e"
    )
    assert rule.judge(2.0, Evidence(0.0, 0.0, 0.2, path=0.1, rate=0.3)).multiplier == 3.0, "a plateau: escape"
    assert rule.judge(2.0, Evidence(0.0, 0.0, 0.19, path=1.0, rate=0.3)).multiplier == 2.0
    assert rule.judge(30.0, Evidence(0.0, 0.0, 1.0)).multiplier == 32.0
    assert rule.judge(1.1e-6, Evidence(0.0, 0.0, 0.0, path=0.0, rate=1.0)).multiplier == 1e-6
    assert rule.judge(1.0, NOTHING).keep and not rule.compares and rule.adapts
    assert rule.rate(1.0) == 0.3 and rule.rate(0.1) == pytest.approx(0.125)


def test_trust_region_rule() -> None:
    rule = TrustRegion()
    better, worse, same = (rule.judge(1.0, Evidence(now, 1.0, 0.0)) for now in (0.5, 2.0, 1.0))
    assert (better.keep, better.multiplier) == (True, 1.2)
    assert (worse.keep, worse.multiplier) == (False, 0.7)
    assert (same.keep, same.multiplier) == (True, 1.0)
    tied = rule.judge(1.0, Evidence(2.0, 1.0, 0.2))
    assert (tied.keep, tied.multiplier) == (False, 1.5)
    assert rule.judge(7.9, Evidence(0.0, 1.0, 0.0)).multiplier == 8.0
    assert rule.judge(1e-6, Evidence(2.0, 1.0, 0.0)).multiplier == 1e-6
    assert rule.rate(1.0) == 0.0 and rule.compares
    still = Scheduled()
    assert still.judge(3.0, Evidence(9.0, 0.0, 1.0)).multiplier == 3.0 and not still.adapts


@pytest.mark.parametrize("rule", [PathLength, TrustRegion])
def test_rules_refuse_a_range_without_the_radii_of_the_schedules(rule: type[PathLength | TrustRegion]) -> None:
    """A multiplier begins at 1."""
    for smallest, largest in ((0.0, 8.0), (-0.1, 8.0), (1.5, 8.0), (0.1, 0.9), (0.1, math.inf), (math.nan, 8.0)):
        with pytest.raises(ValueError, match=f"1 must lie between .* got {smallest} and {largest}"):
            rule(smallest=smallest, largest=largest)
    still = rule(smallest=1.0, largest=1.0)
    assert still.judge(1.0, Evidence(0.0, 1.0, 1.0)).multiplier == 1.0


def test_a_step_that_is_taken_back_ends_at_the_best_known_point() -> None:
    """The step itself made things worse; of probes and the point before it, the best is where the search goes on."""

    def after(better_probe: bool) -> tuple[Tensor, Tensor, FrameStep]:
        search = FrameStep(control=TrustRegion(), confirmations=0, directions=3, momentum=0.5)
        search.start(torch.zeros(3, dtype=F64))
        search.tell(search.ask()[:, 0])  # downhill along the first axis
        before = search.memory.before
        points = search.ask()
        cost = torch.full((len(points),), 9.0, dtype=F64)
        cost[-2], cost[-1] = 8.0, 5.0  # the present point and the one before
        cost[2] = 4.0 if better_probe else 6.0
        search.tell(cost)
        return points[2] if better_probe else before, search.incumbent, search

    for better_probe in (True, False):
        want, found, search = after(better_probe)
        assert torch.equal(want, found) and not search.memory.velocity.any() and search.memory.multiplier < 1.2


def test_adam_of_the_evolution_strategy_is_debiased() -> None:
    """With debiased moments the first step has the length of the rate in every coordinate, the second nearly so."""
    search = OpenAIES(rate=0.05, confirmations=0).start(torch.zeros(5, dtype=F64))
    slope = torch.tensor([1.0, -2.0, 5.0, 0.1, -0.3], dtype=F64)
    search.tell(search.ask() @ slope)
    first = search.incumbent
    assert first.abs().tolist() == pytest.approx([0.05] * 5, rel=1e-3)
    assert float(first @ slope) < 0
    # Again the same noise and ranks: moments of a constant slope, debiased, are that slope, so the step repeats.
    search.ask()
    repeated = OpenAIES(rate=0.05, confirmations=0).start(torch.zeros(5, dtype=F64))
    noise = torch.randn(16, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    for _ in range(4):
        repeated.ask()
        repeated._noise = noise
        repeated.tell(torch.cat([noise @ slope, -noise @ slope]))
    steps = (repeated.incumbent / 4).abs()
    assert steps.tolist() == pytest.approx([0.05] * 5, rel=1e-3)


def test_weight_decay_and_rank_slopes() -> None:
    search = OpenAIES(rate=0.05, decay=0.1, confirmations=0, size=4).start(torch.ones(2, dtype=F64))
    search.ask()
    search.tell(torch.zeros(4, dtype=F64))
    assert search.incumbent.tolist() == pytest.approx([0.9, 0.9]), "ties move nothing but the decay"


def test_spsa_gains_follow_spalls_powers() -> None:
    """The first step is ``step`` on average, its successors fall as (k + 1 + A)^-0.602, perturbations as k^-0.101."""
    search = SPSA(pairs=3, radius=0.2, step=0.1, stability=20.0, confirmations=0).start(torch.zeros(4, dtype=F64))
    slope = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)
    for k in range(4):
        points = search.ask()
        half = (points[:3] - points[3:]) / 2
        torch.testing.assert_close(half.abs(), torch.full_like(half, 0.2 / (k + 1) ** 0.101))
        signs = half.sign()
        estimate = (signs @ slope) @ signs / 3
        before = search.incumbent
        search.tell(points @ slope)
        moved = search.incumbent - before
        if k == 0:
            gain = 0.1 / float(estimate.abs().mean()) * 21**0.602
        rate = min(gain / (k + 21) ** 0.602, 0.1 / float(estimate.abs().mean()))
        torch.testing.assert_close(moved, -rate * estimate)
        assert float(moved.abs().mean()) <= 0.1 + 1e-12, "no step is longer than the first"


def test_ars_moves_along_the_best_pairs_in_units_of_their_spread() -> None:
    search = ARS(confirmations=0, directions=6, top=2, noise=0.5, rate=0.3).start(torch.zeros(3, dtype=F64), seed=1)
    points = search.ask()
    cost = (points @ torch.tensor([1.0, -1.0, 2.0], dtype=F64)).sinh()
    up, down = cost[:6], cost[6:]
    top = torch.minimum(up, down).argsort()[:2]  # the lower cost of each pair says which directions are kept
    spread = torch.cat([up[top], down[top]]).std(correction=0)
    want = -0.3 / (2 * spread) * (up[top] - down[top]) @ (points[:6] / 0.5)[top]
    search.tell(cost)
    torch.testing.assert_close(search.incumbent, want)
    search.ask()
    search.tell(torch.ones(12, dtype=F64))
    torch.testing.assert_close(search.incumbent, want)  # ties say nothing


# ------------------------------------------------------------------ the champion


@given(
    costs=st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6),
    confirmations=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_challenger_takes_over_only_while_it_leads(costs: list[tuple[float, float]], confirmations: int) -> None:
    old, new = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    champion = Champion(old, new)
    lead, rounds, over, total = 0.0, 0, False, 0.0
    for a, b in costs:
        wanted = champion.fight(a, b, confirmations)
        lead, rounds, total = lead + b - a, rounds + 1, total + b
        if lead >= 0:
            assert wanted and torch.equal(champion.x, old)
            over = True
        elif rounds >= confirmations:
            assert wanted and torch.equal(champion.x, new)
            assert champion.best is not None and champion.best.evaluations == rounds
            assert champion.best.cost == pytest.approx(total / rounds)
            over = True
        else:
            assert not wanted and torch.equal(champion.x, old)
        if over:
            break


def test_a_champion_that_fails_gives_way() -> None:
    champion = Champion(torch.zeros(1), torch.zeros(1))
    assert champion.best is None
    champion.replace_failed(torch.ones(1), 3.0)
    assert champion.best is not None and champion.best.cost == 3.0 and champion.best.evaluations == 0
    champion.replace_failed(torch.full((1,), 2.0), 1.0)
    assert float(champion.x) == 1.0, "it has a finite cost: only a fight replaces it"
    champion.fight(math.inf, 5.0, 1)
    champion.replace_failed(torch.full((1,), 4.0), 9.0)
    assert champion.x.tolist() in ([4.0], [0.0])
    trusting = Champion(torch.zeros(1), torch.zeros(1))
    for cost in (5.0, 2.0, 3.0):
        trusting.select(torch.full((1,), cost), cost)
    assert trusting.best is not None and trusting.best.cost == 2.0 == float(trusting.best.x)
