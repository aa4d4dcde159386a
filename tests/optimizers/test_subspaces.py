"""Subspaces and bounds: what the bases are, what rotation adds, and that points stay where they may be."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from steersman.optimizers.bases import Basis, LowRank, SparseSigns, Uniform, shapes_of
from steersman.optimizers.bounds import BoundedSearch, reflect
from steersman.optimizers.cma_es import CMAES
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.search import minimise
from steersman.optimizers.subspace import SubspaceSearch

F64 = torch.float64
SHAPES = ((6, 10), (6,), (3, 2, 3), (3,))
BASES: tuple[Basis, ...] = (Uniform(7), LowRank(SHAPES, 2), SparseSigns(7))


def rows(basis: Basis, dim: int = 87) -> Tensor:
    lift = basis.draw(torch.zeros(dim, dtype=F64), torch.Generator().manual_seed(3))
    out = torch.empty(lift.rank, dim, dtype=F64)
    lift.into(torch.eye(lift.rank, dtype=F64), torch.zeros(dim, dtype=F64), out)
    return out


@pytest.mark.parametrize("basis", BASES)
def test_rows_are_orthogonal_and_of_one_scale(basis: Basis) -> None:
    found = rows(basis)
    gram = found @ found.T
    torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-10, rtol=0)
    length = gram.diag() / (87 / len(found))
    assert float(length.mean()) == pytest.approx(1)
    assert float(length.amin()) > 0.9 and float(length.amax()) < 1.1


@pytest.mark.parametrize("basis", BASES)
def test_a_lift_is_affine(basis: Basis) -> None:
    gen = torch.Generator().manual_seed(0)
    origin = torch.randn(87, generator=gen, dtype=F64)
    lift = basis.draw(origin, torch.Generator().manual_seed(3))
    z, out = torch.randn(5, lift.rank, generator=gen, dtype=F64), torch.empty(5, 87, dtype=F64)
    lift.into(z, origin, out)
    torch.testing.assert_close(out, origin + z @ rows(basis))


def test_low_rank_by_layer() -> None:
    lift = LowRank(SHAPES, 2).draw(torch.zeros(87, dtype=F64), torch.Generator().manual_seed(3))
    assert lift.rank == 6 * 2 + 6 + 3 * 2 + 3
    z = torch.randn(4, lift.rank, generator=torch.Generator().manual_seed(1), dtype=F64)
    out = torch.empty(4, 87, dtype=F64)
    lift.into(z, torch.zeros(87, dtype=F64), out)
    assert torch.linalg.matrix_rank(out[:, :60].reshape(4, 6, 10)).tolist() == [2] * 4
    assert torch.linalg.matrix_rank(out[:, 66:84].reshape(4, 3, 6)).tolist() == [2] * 4
    assert shapes_of(torch.nn.Linear(10, 6)) == SHAPES[:2]
    with pytest.raises(ValueError, match="shapes hold 87 entries, x0 has 5"):
        LowRank(SHAPES).draw(torch.zeros(5), torch.Generator())


def test_only_rotation_reaches_what_a_fixed_basis_cannot() -> None:
    def distance(rotate_every: int) -> float:
        inner = FrameStep(confirmations=0, directions=4)
        search = SubspaceSearch(inner=inner, basis=Uniform(4), rotate_every=rotate_every)
        x0 = torch.zeros(24, dtype=F64)
        found = minimise(search.start(x0), lambda x, g: (x - 1).square().sum(1), budget_evaluations=3000)
        return float((found.incumbent - 1).norm())

    floor = math.sqrt(24 * (1 - 4 / 24))
    assert distance(0) > 0.7 * floor
    assert distance(5) < 0.2 * floor
    with pytest.raises(ValueError, match="'cma_es' cannot"):
        SubspaceSearch(inner=CMAES(confirmations=0), rotate_every=5)
    with pytest.raises(ValueError, match="confirmations=1"):
        SubspaceSearch(inner=FrameStep())


def test_reflection() -> None:
    lower = torch.tensor([-1.0, 0.0, -math.inf, -math.inf], dtype=F64)
    upper = torch.tensor([1.0, math.inf, 2.0, math.inf], dtype=F64)
    x = torch.tensor([[0.3, 0.3, 0.3, 0.3], [1.25, -2.0, 5.0, 1e9], [-3.5, 4.0, -7.0, -1e9]], dtype=F64)
    expected = torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.75, 2.0, -1.0, 1e9], [0.5, 4.0, -7.0, -1e9]], dtype=F64)
    torch.testing.assert_close(reflect(x, lower, upper), expected)
    many = torch.linspace(-20, 20, 4001, dtype=F64)[:, None]
    wave = reflect(many, lower[:1], upper[:1])
    assert float(wave.amin()) >= -1 and float(wave.amax()) <= 1
    assert float(wave.diff(dim=0).abs().amax()) <= 0.01 + 1e-12


def test_bounded_searches_stay_inside_and_find_minima_on_the_boundary() -> None:
    search = BoundedSearch(inner=FrameStep(confirmations=0), lower=(-1.0,) * 4, upper=(0.5, 2.0, 2.0, math.inf))
    search.start(torch.zeros(4, dtype=F64))
    for _ in range(120):
        points = search.ask()
        assert bool(((points >= search.memory.lower) & (points <= search.memory.upper)).all())
        search.tell((points - 1).square().sum(1))
    expected = torch.tensor([0.5, 1.0, 1.0, 1.0], dtype=F64)
    torch.testing.assert_close(search.best.x, expected, atol=0.02, rtol=0)


def test_bad_bounds() -> None:
    inner = FrameStep(confirmations=0)
    with pytest.raises(ValueError, match="lower must be below upper"):
        BoundedSearch(inner=inner, lower=1.0, upper=1.0).start(torch.ones(2))
    with pytest.raises(ValueError, match="x0 must lie between"):
        BoundedSearch(inner=inner).start(torch.full((2,), 3.0))
    with pytest.raises(ValueError, match="upper has 3 entries, x0 has 2"):
        BoundedSearch(inner=inner, upper=(1.0, 1.0, 1.0)).start(torch.zeros(2))


MILLION = """
import resource
import sys

import torch

from steersman.optimizers.bases import SparseSigns
from steersman.optimizers.polystep.frame import FrameStep
from steersman.optimizers.polystep.polystep import PolyStep
from steersman.optimizers.subspace import SubspaceSearch

torch.set_num_threads(1)
x0 = torch.zeros(1_000_000)
inner = {"blocks": lambda: PolyStep(confirmations=0), "frame": lambda: FrameStep(confirmations=0)}
if sys.argv[1] == "whole":
    search = FrameStep().start(x0)
else:
    search = SubspaceSearch(inner=inner[sys.argv[1]](), basis=SparseSigns(64), rotate_every=2).start(x0)
for _ in range(4):
    search.tell((search.ask() - 1).square_().mean(1))
print(float(search.incumbent.abs().amax()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "frame", "blocks"])
def test_a_million_coordinates_fit_in_four_gigabytes(kind: str) -> None:
    command = [sys.executable, "-c", MILLION, kind]
    moved, peak = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert moved > 0 and peak < 4, f"peak {peak:.2f} GiB"
