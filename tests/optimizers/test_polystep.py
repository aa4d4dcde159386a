"""Geometry, weights and the small-signal law of PolyStep."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steersman.optimizers.polystep import sinkhorn
from steersman.optimizers.polystep.control import PathLength, Scheduled, TrustRegion
from steersman.optimizers.polystep.driver import tied_share
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.polystep.polytopes import Polytope
from steersman.optimizers.polystep.rotations import aimed, haar_frame, haar_rotations
from steersman.optimizers.polystep.schedules import Schedule, value_at
from steersman.optimizers.polystep.sinkhorn import Sinkhorn
from steersman.optimizers.polystep.weighting import ExponentialRanks, Greedy, SampleSize, Softmax, Weighting
from steersman.optimizers.ranks import centred_ranks

F64 = torch.float64


@pytest.mark.parametrize("polytope", Polytope)
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_polytopes_are_centred_and_isotropic(polytope: Polytope, d: int) -> None:
    v = polytope.vertices(d)
    assert len(v) == polytope.size(d)
    torch.testing.assert_close(v.sum(0), torch.zeros(d, dtype=F64), atol=1e-12, rtol=0)
    torch.testing.assert_close(v.norm(dim=1), torch.ones(len(v), dtype=F64))
    torch.testing.assert_close(v.T @ v, torch.eye(d, dtype=F64) * len(v) / d)


def test_simplex_is_regular() -> None:
    v = Polytope.SIMPLEX.vertices(5)
    products = v @ v.T
    off = products[~torch.eye(6, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full_like(off, -1 / 5))


def test_polytopes_refuse_bad_dimensions() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Polytope.SIMPLEX.vertices(0)
    with pytest.raises(ValueError, match="2\\^d"):
        Polytope.CUBE.vertices(13)


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_rotations_are_uniform(d: int) -> None:
    n = 20_000
    turns = haar_rotations(n, d, torch.Generator().manual_seed(0), torch.zeros((), dtype=F64))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(d, dtype=F64).expand(n, d, d), atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(n, dtype=F64))
    if d == 1:
        return
    # Moments of Haar measure: E Q = 0, E Q_ij Q_kl = delta_ik delta_jl / d, E Q_11^4 = 3 / (d (d + 2)).
    error = 5 / math.sqrt(n)
    assert turns.mean(0).abs().amax() < error
    flat = turns.flatten(1)
    expected = torch.eye(d * d, dtype=F64) / d
    if d == 2:  # in the plane Q_11 = Q_22 and Q_12 = -Q_21
        expected = expected + 0.5 * torch.tensor([[0, 0, 0, 1], [0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0]], dtype=F64)
    assert (flat.T @ flat / n - expected).abs().amax() < error
    assert abs(float(turns[:, 0, 0].pow(4).mean()) - 3 / (d * (d + 2))) < error


@pytest.mark.parametrize(("d", "k"), [(3, 3), (5, 2), (40, 4)])
def test_frames_are_orthonormal_and_uniform(d: int, k: int) -> None:
    gen, like = torch.Generator().manual_seed(0), torch.zeros((), dtype=F64)
    frames = torch.stack([haar_frame(d, k, gen, like) for _ in range(3000)])
    eye = torch.eye(k, dtype=F64).expand(len(frames), k, k)
    torch.testing.assert_close(frames @ frames.mT, eye, atol=1e-10, rtol=0)
    flat = frames.flatten(1)
    assert (flat.T @ flat / len(frames) - torch.eye(d * k, dtype=F64) / d).abs().amax() < 5 / math.sqrt(len(frames))
    with pytest.raises(ValueError, match="fewer directions"):
        haar_frame(3, 4, gen, like)


def smooth(x: Tensor) -> Tensor:
    i = torch.arange(1, x.shape[-1] + 1, dtype=F64)
    return (torch.sin(i * x) + 0.5 * i * x.square()).sum(-1) + x[..., 0] * x[..., -1]


def settings(radius: float, temperature: float) -> dict[str, object]:
    return {
        "probe_radius": radius,
        "step_radius": 0.3,
        "weighting": Softmax(temperature, divisor=1.0),
        "control": Scheduled(),
        "momentum": 0.0,
        "confirmations": 0,
    }


@pytest.mark.parametrize("block", [2, 3, 6])
def test_small_signal_law_of_blocks(block: int) -> None:
    """Costs far below the temperature: the step is ``-(r_s rho / (d temperature)) grad``, exactly in the limit."""
    x0 = torch.linspace(-1, 1, 12, dtype=F64)
    search = PolyStep(block=block, **settings(1e-4, 10.0)).start(x0)
    search.tell(smooth(search.ask()))
    x = x0.clone().requires_grad_()
    (grad,) = torch.autograd.grad(smooth(x), x)
    expected = -0.3 * 0.5e-4 / (block * 10.0) * grad
    torch.testing.assert_close(search.incumbent - x0, expected, rtol=1e-5, atol=1e-12)


def test_small_signal_law_of_frames() -> None:
    """With a frame of all directions the law is the same; with fewer, the step is the gradient's projection."""
    x0 = torch.linspace(-1, 1, 12, dtype=F64)
    x = x0.clone().requires_grad_()
    (grad,) = torch.autograd.grad(smooth(x), x)
    for k in (4, 12):
        search = FrameStep(directions=k, **settings(1e-4, 10.0)).start(x0)
        points = search.ask()
        search.tell(smooth(points))
        frame = (points[:k] - x0) / 0.5e-4  # of length sqrt(12): radii are per coordinate
        expected = -0.3 * 0.5e-4 / (k * 10.0) * (grad @ frame.T @ frame)
        torch.testing.assert_close(search.incumbent - x0, expected, rtol=1e-5, atol=1e-12)


def test_large_signal_jumps_to_the_best_vertex() -> None:
    x0 = torch.zeros(4, dtype=F64)
    search = FrameStep(directions=4, **settings(1.0, 1e-6)).start(x0)
    points = search.ask()
    cost = (points - 3).square().sum(1)
    search.tell(cost)
    torch.testing.assert_close(search.incumbent, 0.3 * (points[cost.argmin()] - x0) / 0.5)


def test_probes_sit_on_their_shells_and_touch_their_block_only() -> None:
    x0 = torch.linspace(-1, 1, 7, dtype=F64)
    search = PolyStep(block=3, shells=2, probe_radius=0.6, control=Scheduled(), confirmations=0).start(x0)
    moved = (search.ask() - x0).reshape(2, 3, 6, 7)
    for particle in range(3):
        own = torch.zeros(7, dtype=torch.bool)
        own[3 * particle : 3 * particle + 3] = True
        assert (moved[:, particle][..., ~own] == 0).all()
    torch.testing.assert_close(moved[0, :2].norm(dim=-1), torch.full((2, 6), 0.2, dtype=F64))
    torch.testing.assert_close(moved[1, :2].norm(dim=-1), torch.full((2, 6), 0.4, dtype=F64))


def test_too_many_coordinates_for_blocks_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="frame_step"):
        PolyStep().start(torch.zeros(100_000))


def test_ties_share_their_rank() -> None:
    cost = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0], dtype=F64)
    torch.testing.assert_close(centred_ranks(cost), torch.tensor([0.25, -0.5, 0.25, -0.25, 0.25], dtype=F64))
    assert (centred_ranks(torch.zeros(4, dtype=F64)) == 0).all()
    assert (centred_ranks(torch.ones(1, dtype=F64)) == 0).all()
    random = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert abs(float(centred_ranks(random).sum())) < 1e-12
    assert torch.equal(centred_ranks(random), centred_ranks(random.exp()))


@pytest.mark.parametrize("weighting", [Softmax(), Softmax(divisor="max"), SampleSize(), ExponentialRanks()])
def test_weights_do_not_depend_on_units(weighting: Weighting) -> None:
    cost = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    cost[2] = 0.3
    weight = weighting(cost, 0)
    torch.testing.assert_close(weight.sum(1), torch.ones(5, dtype=F64))
    torch.testing.assert_close(weight[2], torch.full((6,), 1 / 6, dtype=F64))
    torch.testing.assert_close(weighting(1e6 * cost - 7e5, 0), weight, rtol=1e-6, atol=1e-9)
    order = cost[0].argsort()
    assert (weight[0, order].diff() < 0).all()
    torch.testing.assert_close(weighting(torch.zeros(2, 4, dtype=F64), 0), torch.full((2, 4), 0.25, dtype=F64))


def test_greedy_takes_the_cheapest_and_shares_ties() -> None:
    cost = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 2.0], [5.0, 5.0, 5.0]], dtype=F64)
    expected = torch.tensor([[0, 1, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], dtype=F64)
    torch.testing.assert_close(Greedy()(cost, 0), expected)


def test_sinkhorn_meets_both_marginals_and_has_the_form_of_an_entropic_plan() -> None:
    cost = torch.rand(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    plan = Sinkhorn(0.1, divisor=1.0, tolerance=1e-12)(cost, 0)
    torch.testing.assert_close(plan.sum(1), torch.ones(40, dtype=F64))
    torch.testing.assert_close(plan.sum(0), torch.full((6,), 40 / 6, dtype=F64))
    log = plan.log() + cost / 0.1  # is a sum of a function of rows and one of columns
    torch.testing.assert_close(log - log[:, :1], (log[:1] - log[:1, :1]).expand(40, 6), rtol=0, atol=1e-9)
    torch.testing.assert_close(Sinkhorn(0.1)(cost[:1], 0), Softmax(0.1)(cost[:1], 0))


def test_sinkhorn_by_logarithms_equals_sinkhorn_by_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = torch.rand(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    factors = Sinkhorn(0.02, divisor=1.0, tolerance=1e-12)(cost, 0)
    monkeypatch.setattr(sinkhorn, "_SMALLEST", 0.0)
    torch.testing.assert_close(Sinkhorn(0.02, divisor=1.0, tolerance=1e-12)(cost, 0), factors)
    monkeypatch.undo()
    cold = Sinkhorn(1e-4, divisor=1.0)(cost, 0)
    assert bool(torch.isfinite(cold).all())
    torch.testing.assert_close(cold.sum(1), torch.ones(40, dtype=F64))


@pytest.mark.parametrize("smallest", [-200.0, 0.0], ids=["factors", "logarithms"])
def test_sinkhorn_counts_its_iterations(smallest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two rounds of scaling columns to their masses and then rows, by hand."""
    monkeypatch.setattr(sinkhorn, "_SMALLEST", smallest)
    cost = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    want = torch.softmax(-cost / 0.1, dim=1)
    for iterations in (1, 2):
        want = want * (5 / 3) / want.sum(0)
        want = want / want.sum(1, keepdim=True)
        found = Sinkhorn(0.1, divisor=1.0, tolerance=1e-12, iterations=iterations)(cost, 0)
        torch.testing.assert_close(found, want)


def test_path_length_is_one_by_chance_and_knows_straight_from_crooked() -> None:
    def multiplier(cost_of: Callable[[Tensor, Tensor], Tensor]) -> float:
        search, gen = FrameStep(confirmations=0).start(torch.zeros(30, dtype=F64)), torch.Generator().manual_seed(5)
        logs = []
        for _ in range(300):
            search.memory.multiplier = 1.0
            points = search.ask()
            search.tell(cost_of(points, torch.rand(len(points), generator=gen, dtype=F64)))
            logs.append(math.log(search.memory.multiplier))
        return sum(logs) / len(logs)

    assert abs(multiplier(lambda x, noise: noise)) < 0.01
    assert multiplier(lambda x, noise: x.sum(1)) > 0.03
    # Not around zero itself: there every pair would tie.
    assert multiplier(lambda x, noise: (x - 0.01).square().sum(1)) < -0.02


def test_aimed_frames_keep_their_law_about_the_direction() -> None:
    gen, like = torch.Generator().manual_seed(0), torch.zeros((), dtype=F64)
    along = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    frames = aimed(haar_rotations(4000, 3, gen, like), along.expand(4000, 3))
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3, dtype=F64).expand(4000, 3, 3), atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frames), torch.ones(4000, dtype=F64))
    torch.testing.assert_close(frames[:, 0], (along / along.norm()).expand(4000, 3))
    assert frames[:, 1:].mean(0).abs().amax() < 5 / math.sqrt(4000)
    still = haar_rotations(5, 3, gen, like)
    assert torch.equal(aimed(still, torch.zeros(5, 3, dtype=F64)), still)
    torch.testing.assert_close(aimed(frames, along.expand(4000, 3)), frames)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_frame_is_aimed_alone_and_in_a_batch(k: int) -> None:
    """Rows before the last keep their angle to what they were reflected in; the last undoes the change of orientation."""
    gen, like = torch.Generator().manual_seed(1), torch.zeros((), dtype=F64)
    along = torch.tensor([0.0, 2.0, -1.0, 3.0], dtype=F64)
    unit = along / along.norm()
    frames = torch.stack([haar_frame(4, k, gen, like) for _ in range(6)])
    batch = aimed(frames, along.expand(6, 4))
    for frame, found in zip(frames, batch, strict=True):
        torch.testing.assert_close(aimed(frame, along), found)
        torch.testing.assert_close(found[0], unit)
        normal = frame[0] - unit
        mirror = torch.eye(4, dtype=F64) - 2 * torch.outer(normal, normal) / normal.square().sum()
        image = frame @ mirror
        signs = torch.ones(k, 1, dtype=F64)
        if k > 1:
            signs[-1] = -1
        torch.testing.assert_close(found, signs * image)


def test_sample_size_is_met() -> None:
    cost = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    for fraction in (0.25, 0.5, 0.9):
        weight = SampleSize(fraction)(cost, 0)
        assert float((1 / weight.square().sum(1)).mean() / 6) == pytest.approx(fraction, rel=1e-3)


def test_schedules() -> None:
    for shape in ("linear", "cosine", "power", "root"):
        schedule = Schedule(1.0, 0.01, 100, shape)
        values = [schedule(i) for i in range(120)]
        assert values[0] == 1.0 and values[100] == values[119] == pytest.approx(0.01)
        assert all(a >= b for a, b in itertools.pairwise(values))
    assert Schedule(1.0, 0.01, 100, "power")(50) == pytest.approx(0.1)
    # A quarter of the way from 1 to 16 in squares: 1 / sqrt(1 + 15 / 4).
    assert Schedule(1.0, 0.25, 100, "root")(25) == pytest.approx(1 / math.sqrt(4.75))
    assert value_at(2.0, 5) == 2.0
    with pytest.raises(ValueError, match="positive"):
        Schedule(1.0, 0.0, 10)


def test_trust_region_leaves_a_plateau_that_traps_fixed_radii() -> None:
    """Zero cost change within 2 of the start, a bowl outside: only growing radii find it."""

    def dish(x: Tensor, generation: int) -> Tensor:
        far = x.norm(dim=1)
        return torch.where(far < 2, 10.0, (x - 4).square().sum(1) / 4)

    found = []
    for control in (TrustRegion(), PathLength(), Scheduled()):
        search = PolyStep(control=control).start(torch.zeros(4, dtype=F64))
        for _ in range(150):
            search.tell(dish(search.ask(), search.generation))
        found.append(search.best.cost)
    assert found[0] < 0.1 and found[1] < 0.1 and found[2] == 10.0


@pytest.mark.parametrize("control", [PathLength(), TrustRegion()])
def test_radii_grow_where_most_but_not_all_candidates_tie(control: PathLength | TrustRegion) -> None:
    def grown(control: PathLength | TrustRegion) -> float:
        search, gen = FrameStep(control=control, directions=8, confirmations=0), torch.Generator().manual_seed(0)
        search.start(torch.zeros(30, dtype=F64))
        for _ in range(8):
            cost = torch.zeros(len(search.ask()), dtype=F64)
            cost[int(torch.randint(0, 16, (), generator=gen))] = 1.0  # a different one each time: no direction
            search.tell(cost)
        return search.memory.multiplier

    assert grown(control) == pytest.approx(min(1.5**8, control.largest))
    assert grown(replace(control, plateau=1.0)) < 1.5


def test_radii_stay_wide_on_a_cost_in_steps_and_shrink_on_a_smooth_one() -> None:
    def settled(step: float) -> tuple[float, float]:
        search = FrameStep().start(torch.full((20,), 2.0, dtype=F64))
        multipliers = []
        for _ in range(300):
            cost = search.ask().square().mean(dim=1)
            search.tell((cost / step).floor() * step if step else cost)
            multipliers.append(search.memory.multiplier)
        return sum(multipliers[-50:]) / 50, search.best.cost

    (narrow, smooth_cost), (wide, stepped_cost) = settled(0.0), settled(0.05)
    assert narrow < 0.02 and smooth_cost < 1e-4
    assert wide > 1 and stepped_cost <= 0.05


def test_ties_of_coordinates_without_effect_do_not_count() -> None:
    """Half of the blocks change nothing at any radius; where costs are continuous the rule for plateaus is idle."""

    def run(plateau: float, form: type[FrameStep] | type[PolyStep]) -> Tensor:
        search = form(control=PathLength(plateau=plateau)).start(torch.ones(8, dtype=F64))
        for _ in range(30):
            search.tell(smooth(search.ask()[:, :4]))
        return search.incumbent

    for form in (PolyStep, FrameStep):
        assert torch.equal(run(0.2, form), run(1.0, form))


def test_pairs_that_tie_are_counted_over_particles_that_do_not() -> None:
    cost = torch.tensor([[1, 2, 1, 3], [1, 4, 1, 4], [1, 2, 3, 4], [5, 5, 5, 5]], dtype=F64)
    assert tied_share(cost) == pytest.approx((1 + 1 + 0) / 6)
    worst = torch.tensor([[3, 3, 3, 2, 3, 3]], dtype=F64)  # where a better candidate is in sight, no plateau is left
    assert tied_share(worst) == 0.0 and tied_share(-worst) == pytest.approx(2 / 3)
    assert tied_share(cost[3:]) == 1.0
    assert tied_share(torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)) == 0.0
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="plateau"):
            PathLength(plateau=wrong)


def test_trust_region_never_accepts_a_worse_point() -> None:
    search = FrameStep(confirmations=0, control=TrustRegion()).start(torch.full((5,), 2.0, dtype=F64))
    costs = []
    for _ in range(60):
        search.tell(smooth(search.ask()))
        costs.append(float(smooth(search.memory.before)))
    assert all(b <= a for a, b in itertools.pairwise(costs))
    assert costs[-1] < costs[0]
