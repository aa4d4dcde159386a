import numpy as np
import pytest
import torch

from steersman.envs import noise
from steersman.envs.abm import _compiled, _slots
from steersman.envs.abm._flock import CELLS, Flock, _graze, _hunt
from steersman.envs.abm.wolf_sheep import TARGETS, Rules, WolfSheep
from steersman.envs.checks import check_plant
from steersman.envs.plant import Status, Trail
from steersman.envs.simulator import PlantSimulator
from steersman.envs.tree import tree_index
from steersman.experiments.benchmarks.mesa_wolf_sheep import Meadow

REFERENCE = torch.tensor([161.2, 76.0, 969.0], dtype=torch.float64)
STERILE = Rules(reproduction=(0.0, 0.0))


def begin(plant: WolfSheep, n: int, seed: int = 0, energy: float | None = None):
    key = noise.keys(seed, n)
    p = plant.params(key)
    x = plant.initial(key, p)
    if energy is not None:
        x = x | {name: torch.full_like(x[name], energy) for name in ("sheep_energy", "wolf_energy")}
    return key, p, x


def advance(plant: WolfSheep, key, p, x, u=(0.0, 0.0), k: int = 0):
    step = torch.full((len(key),), k)
    action = torch.tensor(u, dtype=torch.float64).expand(len(key), 2)
    return plant.step(step, x, action, plant.disturbance(key, step), p)


def counts(plant: WolfSheep, x, p):
    return plant.measure(torch.zeros_like(x["tick"]), x, p)[:, :3]


def empty(x, species: str):
    return x | {f"{species}_alive": torch.zeros_like(x[f"{species}_alive"])}


def animals(x, species: str, row: int = 0):
    alive = x[f"{species}_alive"][row]
    return {part: x[f"{species}_{part}"][row][alive] for part in ("x", "y", "energy", "heading", "identity")}


def cells(a) -> torch.Tensor:
    return a["y"].long() * 51 + a["x"].long()


def by_identity(a):
    order = a["identity"].argsort()
    return {name: t[order] for name, t in a.items()}


# ----------------------------------------------------------------------- contract


@pytest.mark.parametrize("rounding", ["half_up", "binomial"])
def test_contract_and_rows_bitwise_independent(rounding: str) -> None:
    check_plant(WolfSheep(hold=5, warmup=15, rounding=rounding), steps=4, tolerance=0.0)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="capacity for sheep"):
        WolfSheep(capacity=(50, 50))
    with pytest.raises(ValueError, match="hold"):
        WolfSheep(hold=0)
    with pytest.raises(ValueError, match="rounding"):
        WolfSheep(rounding="up")


@pytest.mark.parametrize("side", [9, 120])
def test_other_sides_in_both_implementations(side: int) -> None:
    rules = Rules(start=(60, 30), side=side)
    key = noise.keys(5, 4)
    x = _slots.setup(key, rules, (512, 256))
    assert x["grown"].shape[1] == side * side and float(x["sheep_x"].max()) > 0.8 * side
    a, b = (module.advance(x, key, 40, rules, None, False) for module in (_compiled, _slots))
    assert all(torch.equal(a[name], b[name]) for name in a)
    for part in ("x", "y"):
        assert float(a[f"sheep_{part}"].max()) < side


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"reproduction": (-0.1, 0.05)}, "reproduction of sheep must be a probability, got -0.1"),
        ({"reproduction": (0.1, float("nan"))}, "reproduction of wolves must be a probability, got nan"),
        ({"gain": (float("nan"), 20.0)}, "gain of sheep must be finite"),
        ({"start": (100, -1)}, "start of wolves"),
        ({"regrowth": -3}, "regrowth"),
        ({"side": 1}, "side must be"),
    ],
)
def test_bad_rates(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rules(**bad)  # type: ignore[arg-type]


def test_setup_is_that_of_the_library_model() -> None:
    plant = WolfSheep(warmup=0)
    _, p, x = begin(plant, 64)
    c = counts(plant, x, p)
    assert (c[:, 0] == 100).all() and (c[:, 1] == 50).all()
    assert abs(c[:, 2].mean() - CELLS / 2) < 4 * (CELLS / 4 / 64) ** 0.5
    for species, top in (("sheep", 7), ("wolf", 39)):
        e = x[f"{species}_energy"][x[f"{species}_alive"]]
        assert e.min() == 0 and e.max() == top and torch.equal(e, e.round())
    brown = x["grown"][x["grown"] > 0]
    assert brown.min() == 1 and brown.max() == 30


# -------------------------------------------------------------------------- rules


def test_heading_walk() -> None:
    plant = WolfSheep(hold=1, warmup=0, rules=STERILE)
    key, p, x = begin(plant, 16, energy=10.0)
    after = advance(plant, key, p, empty(x, "wolf"))
    turned = []
    for row in range(16):
        a, b = by_identity(animals(x, "sheep", row)), by_identity(animals(after, "sheep", row))
        turn = (b["heading"] - a["heading"] + 180 * 180) % (360 * 180) - 180 * 180
        assert (turn % 180 == 0).all() and turn.abs().max() <= 49 * 180
        turned.append(turn.double() / 180)
        angle = b["heading"].double() / 180 * torch.pi / 180
        for part, unit in (("x", angle.sin()), ("y", angle.cos())):
            gap = (b[part] - a[part] - unit + 25.5) % 51 - 25.5
            assert gap.abs().max() < 1e-5 and b[part].min() >= 0 and b[part].max() < 51
    turned = torch.cat(turned)
    # The difference of two uniform integers on 0..49 has variance 2 (50^2 - 1) / 12.
    assert abs(turned.var() - 2 * 2499 / 12) < 40 and abs(turned.mean()) < 2


def test_one_sheep_eats_on_a_green_cell() -> None:
    plant = WolfSheep(hold=1, warmup=0, rules=Rules(start=(1000, 1), reproduction=(0.0, 0.0)))
    key, p, x = begin(plant, 2, energy=10.0)
    x = empty(x, "wolf")
    after = advance(plant, key, p, x)
    for row in range(2):
        sheep = animals(after, "sheep", row)
        eaters = sheep["energy"] == 13.0
        assert torch.equal(sheep["energy"][~eaters], torch.full_like(sheep["energy"][~eaters], 9.0))
        green = x["grown"][row] <= 0
        visited = torch.bincount(cells(sheep), minlength=CELLS)
        meals = torch.bincount(cells(sheep)[eaters], minlength=CELLS)
        assert (visited[green] > 1).any()
        assert torch.equal(meals, (green & (visited > 0)).long())


def test_the_eating_sheep_is_chosen_uniformly() -> None:
    n = 6000
    row = torch.arange(n).repeat_interleave(3)
    flock = Flock(torch.zeros(3, 3 * n, dtype=torch.int64), torch.zeros(3, 3 * n), 3 * n, torch.zeros(n * CELLS, dtype=torch.int32), n)  # fmt: skip
    energy = torch.zeros(3 * n)
    _graze(flock, row * CELLS, energy, noise.bits(noise.keys(1, n), 3).reshape(-1), 0, Rules())
    wins = (energy.reshape(n, 3) > 0).double()
    assert (wins.sum(1) == 1).all()
    assert (wins.mean(0) - 1 / 3).abs().max() < 4 * (2 / 9 / n) ** 0.5


def test_pairs_are_matched_cell_by_cell() -> None:
    plant = WolfSheep(hold=1, warmup=0, capacity=(1024, 1024), rules=Rules(start=(1000, 800), reproduction=(0.0, 0.0)))
    key, p, x = begin(plant, 1, energy=10.0)
    alone, both = advance(plant, key, p, empty(x, "wolf")), advance(plant, key, p, x)
    sheep, wolves, left = animals(alone, "sheep"), animals(both, "wolf"), animals(both, "sheep")
    killed = ~torch.isin(sheep["identity"], left["identity"])
    s, w = (torch.bincount(cells(a), minlength=CELLS) for a in (sheep, wolves))
    pairs = torch.minimum(s, w)
    assert pairs.max() > 1 and len(wolves["x"]) == 800
    assert torch.equal(torch.bincount(cells(sheep)[killed], minlength=CELLS), pairs)
    assert torch.equal(torch.bincount(cells(wolves)[wolves["energy"] == 29.0], minlength=CELLS), pairs)


def test_the_victim_is_chosen_uniformly() -> None:
    n = 6000
    herd, pack = torch.arange(n).repeat_interleave(3) * CELLS, torch.arange(n) * CELLS
    word = noise.bits(noise.keys(2, n), 4)
    living = torch.ones(n, 3, dtype=torch.bool)
    living[: n // 2, 0] = False
    killed, fed = _hunt(herd, living.reshape(-1), word[:, :3].reshape(-1), pack, word[:, 3].contiguous(), n * CELLS)
    dead = torch.zeros(3 * n).index_fill(0, killed, 1.0).reshape(n, 3).double()
    assert (dead.sum(1) == 1).all() and len(fed) == n and dead[: n // 2, 0].sum() == 0
    assert (dead[n // 2 :].mean(0) - 1 / 3).abs().max() < 4 * (2 / 9 / (n / 2)) ** 0.5


def test_births_halve_the_energy_and_the_newborn_does_not_act() -> None:
    plant = WolfSheep(hold=1, warmup=0, rules=Rules(reproduction=(1.0, 0.0)))
    key, p, x = begin(plant, 1, energy=10.0)
    sheep = animals(advance(plant, key, p, empty(x, "wolf")), "sheep")
    assert len(sheep["x"]) == 200
    old, new = ({name: t[part] for name, t in sheep.items()} for part in (slice(0, 100), slice(100, 200)))
    assert set(old["energy"].tolist()) == {4.5, 6.5}
    assert torch.equal(old["energy"], new["energy"])
    gap = [(new[part] - old[part] + 25.5) % 51 - 25.5 for part in ("x", "y")]
    assert torch.allclose(torch.hypot(*gap), torch.ones(100), atol=1e-5)
    assert len(sheep["identity"].unique()) == 200


def test_energy_zero_survives_and_below_dies() -> None:
    plant = WolfSheep(hold=1, warmup=0, rules=STERILE)
    key, p, x = begin(plant, 1, energy=1.0)
    x["grown"] = torch.full_like(x["grown"], 1000)
    x = empty(x, "wolf") | {"wolf_energy": x["wolf_energy"]}
    x = advance(plant, key, p, x)
    assert counts(plant, x, p)[0, 0] == 100 and (animals(x, "sheep")["energy"] == 0).all()
    assert counts(plant, advance(plant, key, p, x, k=1), p)[0, 0] == 0


@pytest.mark.parametrize("regrowth", [0, 3])
def test_grass_takes_one_update_more_than_its_countdown(regrowth: int) -> None:
    rules = Rules(start=(1, 1), reproduction=(0.0, 0.0), regrowth=regrowth)
    plant = WolfSheep(hold=1, warmup=0, rules=Rules(start=(1, 1)))
    key, p, x = begin(plant, 1, energy=10.0)
    plant = WolfSheep(hold=1, warmup=0, rules=rules)
    x = empty(x, "wolf") | {"grown": torch.zeros_like(x["grown"])}
    # The countdown is 3 after the meal; the updates of this and the next 3 ticks make the cell green.
    grass = []
    for k in range(regrowth + 2):
        x = advance(plant, key, p, x, k=k)
        grass.append(int(counts(plant, x, p)[0, 2]))
        x = empty(x, "sheep")
    assert grass == [CELLS - 1] * regrowth + [CELLS] * 2


# ------------------------------------------------------------------------- control


def test_removal_rounds_half_up_and_is_uniform() -> None:
    n = 1500
    plant = WolfSheep(hold=1, warmup=0, capacity=(100, 50), rules=STERILE)
    key, p, x = begin(plant, n, energy=10.0)
    after = advance(plant, key, p, x, (0.0, 0.05))
    assert (counts(plant, after, p)[:, 1] == 47).all()
    same = (x["wolf_identity"][:, :, None] == after["wolf_identity"][:, None, :47]).any(-1)
    share = (~same).double().mean(0)
    assert (share - 0.06).abs().max() < 4 * (0.06 * 0.94 / n) ** 0.5
    no_wolves = advance(plant, key[:20], p, empty(tree_index(x, slice(0, 20)), "wolf"), (0.085, 0.0))
    assert (no_wolves["sheep_alive"].sum(1) == 91).all()


def test_binomial_removal_has_the_binomial_moments() -> None:
    n, theta = 1500, 0.03
    plant = WolfSheep(hold=1, warmup=0, capacity=(100, 50), rounding="binomial", rules=STERILE)
    key, p, x = begin(plant, n, energy=10.0)
    removed = 50 - counts(plant, advance(plant, key, p, x, (0.0, theta)), p)[:, 1]
    variance = 50 * theta * (1 - theta)
    assert abs(removed.mean() - 50 * theta) < 4 * (variance / n) ** 0.5
    assert abs(removed.var() / variance - 1) < 0.2


def test_a_control_step_holds_for_ten_ticks() -> None:
    plant = WolfSheep(hold=10, warmup=0)
    key, p, x = begin(plant, 3)
    assert (advance(plant, key, p, x)["tick"] == 10).all()
    assert plant.period == 10.0


def test_targets_alternate_and_the_clock_runs() -> None:
    plant = WolfSheep(warmup=0)
    _, p, x = begin(plant, 32)
    gaps = torch.diff(p["switch_tick"], prepend=torch.zeros(32, 1, dtype=torch.int64))
    assert gaps.min() >= 150 and gaps.max() <= 250 and set(p["first_target"].tolist()) == {0, 1}
    r = torch.stack([plant.reference(torch.full((32,), k), p) for k in range(101)], dim=1)
    assert {tuple(v) for v in r.reshape(-1, 2).tolist()} == set(TARGETS)
    switches = (torch.diff(r[..., 0], dim=1) != 0).sum(1)
    assert switches.min() >= 4 and switches.max() <= 6
    k = (p["switch_tick"][:, 0] + 9) // 10
    y = plant.measure(k, x, p)
    assert torch.equal(y[:, 5].long(), k * 10 - p["switch_tick"][:, 0])
    assert torch.equal(y[:, 3:5], plant.reference(k, p))


# -------------------------------------------------------------------------- status


def test_extinction_terminates_and_is_paid_for() -> None:
    plant = WolfSheep(warmup=0)
    sim = PlantSimulator(plant, 3)
    scenarios = sim.scenarios(noise.keys(0, 3))
    alive = scenarios.x0["wolf_alive"].clone()
    alive[1] = False
    sim.reset(type(scenarios)(scenarios.key, scenarios.p, scenarios.x0 | {"wolf_alive": alive}))
    t = sim.step(torch.zeros(3, 2, dtype=torch.float64))
    assert t.status.tolist() == [Status.OK, Status.TERMINATED, Status.OK]
    assert t.terms["failure"].tolist() == [0.0, 10.0 * 100, 0.0]


def test_overflow_ends_its_row_and_leaves_the_others() -> None:
    plant = WolfSheep(hold=1, warmup=0, capacity=(100, 400), rules=Rules(reproduction=(0.5, 0.05)))
    key, p, x = begin(plant, 3, energy=10.0)
    x["sheep_alive"][::2, 5:] = False
    after = advance(plant, key, p, x)
    status = plant.status(torch.ones(3, dtype=torch.int64), after, p)
    assert status.tolist() == [Status.OK, Status.VIOLATED, Status.OK]
    assert after["sheep_alive"][1].all() and after["sheep_x"].max() < 51
    alone = advance(plant, key[2:], tree_index(p, slice(2, 3)), tree_index(x, slice(2, 3)))
    assert all(torch.equal(after[name][2:], alone[name]) for name in alone)


# ------------------------------------------------------------------ two implementations


@pytest.mark.parametrize("binomial", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiled_kernel_equals_the_tensor_operations_bit_by_bit(binomial: bool, threads: int) -> None:
    key = noise.keys(3, 6)
    x = y = _slots.setup(key, Rules(), (400, 200))
    gen = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k in range(20):
            w = noise.fold(key, k)
            theta = 0.03 * torch.rand(12, generator=gen, dtype=torch.float64) if k % 3 else None
            x, y = (module.advance(s, w, 10, Rules(), theta, binomial) for module, s in ((_slots, x), (_compiled, y)))
            assert all(torch.equal(x[name], y[name]) and x[name].dtype == y[name].dtype for name in x), k
    finally:
        torch.set_num_threads(before)
    assert len({tuple(row) for row in x["sheep_alive"].tolist()}) > 1


def test_the_compiled_kernel_accepts_states_with_gaps() -> None:
    key = noise.keys(4, 3)
    x = _slots.setup(key, Rules(), (100, 50))
    x["sheep_alive"][:, ::3] = False
    a, b = (module.advance(x, key, 5, Rules(), None, False) for module in (_slots, _compiled))
    assert all(torch.equal(a[name], b[name]) for name in a)


# -------------------------------------------------------------------------- means


def ensemble(runs: int, ticks: int, theta: tuple[float, float], record: int, warmup: int = 0, seed: int = 7):
    """Means per run of sheep, wolves and grass over the control steps from ``record`` on, and the final state."""
    plant = WolfSheep(warmup=warmup)
    key, p, x = begin(plant, runs, seed)
    total = torch.zeros(runs, 3, dtype=torch.float64)
    for k in range(ticks // 10):
        x = advance(plant, key, p, x, theta, k)
        if k >= record // 10:
            total += counts(plant, x, p)
    return total / (ticks // 10 - record // 10), x


def check_means(runs: int, ticks: int, seed: int) -> None:
    mean, x = ensemble(runs, ticks, (0.0, 0.0), 200, seed=seed)
    error = mean.std(0) / runs**0.5
    assert ((mean.mean(0) - REFERENCE).abs() < 3 * error).all(), (mean.mean(0), error)
    assert x["wolf_alive"].any(1).all() and x["sheep_alive"].any(1).all()


def test_uncontrolled_means() -> None:
    check_means(24, 700, seed=7)


@pytest.mark.slow
def test_uncontrolled_means_of_sixty_long_runs() -> None:
    check_means(60, 1000, seed=11)


# Means over 8 runs of a sequential, random-order implementation; the first row over 500 runs of another one, because
# its 8-run value (196, 50, 850) lies two to three of its own standard errors from that.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("theta", "want"),
    [
        ((0.0, 0.01), (198.7, 49.9, 838.8)),
        ((0.0, 0.02), (231, 24, 757)),
        ((0.0, 0.05), (250, 8, 715)),
        ((0.01, 0.0), (160, 41, 970)),
        ((0.01, 0.01), (167, 36, 943)),
    ],
)
def test_removal_table(theta: tuple[float, float], want: tuple[int, int, int]) -> None:
    mean, _ = ensemble(32, 500, theta, 200, warmup=200)
    # The table itself is a mean over 8 runs: its error is twice that of 32 runs, plus half a unit of rounding.
    error = mean.std(0) * (1 / 32 + 1 / 8) ** 0.5
    assert ((mean.mean(0) - torch.tensor(want)).abs() < 3 * error + 0.5).all(), (mean.mean(0), error)


@pytest.mark.slow
@pytest.mark.parametrize("share", [(0.0, 0.0), (0.01, 0.01)])
def test_the_same_model_in_mesa_has_the_same_moments(share: tuple[float, float]) -> None:
    """Means within 99 % bands and spreads within a third, over 60 runs of each; extinctions rare in both."""
    runs, start, end = 60, 200, 400
    found = np.zeros((runs, 3, 2))
    for i in range(runs):
        model = Meadow(i, share=share)
        series = []
        for t in range(end):
            model.step()
            if t >= start and t % 10 == 9:
                series.append(model.counts)
        found[i] = np.stack([np.mean(series, axis=0), np.std(series, axis=0)], axis=1)
    plant = WolfSheep(warmup=0)
    key, p, x = begin(plant, runs)
    ours = []
    for k in range(end // 10):
        x = advance(plant, key, p, x, share, k)
        if k >= start // 10:
            ours.append(counts(plant, x, p))
    batch = torch.stack(ours).numpy()
    mean, spread = batch.mean(0), batch.std(0)
    band = 2.58 * np.sqrt((mean.var(0) + found[..., 0].var(0)) / runs)
    assert (np.abs(mean.mean(0) - found[..., 0].mean(0)) < band + 1e-9).all(), (
        mean.mean(0),
        found[..., 0].mean(0),
        band,
    )
    ratio = spread.mean(0) / found[..., 1].mean(0)
    assert ((ratio > 0.75) & (ratio < 1.33)).all(), ratio
    extinct = [int((ends.min(axis=1) == 0).sum()) for ends in (batch[-1], found[..., 0])]
    assert max(extinct) <= 3, extinct


# ------------------------------------------------------------------------- picture


def test_render() -> None:
    plant = WolfSheep(hold=5, warmup=0)
    sim = PlantSimulator(plant, 1)
    sim.reset(sim.scenarios(noise.keys(0, 1)))
    trail = Trail(sim.p)
    for _ in range(3):
        trail.k.append(int(sim.k[0]))
        trail.x.append(sim.x)
        trail.z.append(sim.perform()[0].numpy())
        trail.r.append(plant.reference(sim.k, sim.p)[0].numpy())
        sim.step(torch.zeros(1, 2, dtype=torch.float64))
    image = plant.render(trail)
    assert image.shape == (400, 900, 3) and image.dtype == np.uint8
    left = image[:, :400].reshape(-1, 3).astype(int)
    # At the setup about half of the torus is green.
    green = (np.abs(left - (96, 160, 72)).sum(1) < 6).mean()
    assert 0.2 < green < 0.6
