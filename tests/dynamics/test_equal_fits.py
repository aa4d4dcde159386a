"""Equal data give equal fits, bit by bit: wherever the data lie in memory, in every process, and after a kill."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from dynamics_test_plants import Oscillator
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.collect import HeldLevels, collect
from steersman.dynamics.continuous.neural_ode import NeuralODE, NeuralODESettings
from steersman.dynamics.estimation.kalman import KalmanFilter
from steersman.dynamics.kinetic.reactions import Process, ReactionDynamics, ReactionSettings
from steersman.dynamics.learned import Learned
from steersman.dynamics.linear.models import LinearDynamics
from steersman.dynamics.linear.regression import affine_fit, ridge
from steersman.dynamics.pinn import operator as operator_module
from steersman.dynamics.pinn.data import collocation, uniform
from steersman.dynamics.pinn.operator import SwingOperator, SwingSettings
from steersman.dynamics.windowed.neural import NeuralDynamics, NeuralSettings
from steersman.dynamics.windowed.sparse import SparseNeuralDynamics, SparseSettings
from steersman.envs.simulator import PlantSimulator
from steersman.optimizers import resumable
from steersman.optimizers.checkpoint import CheckpointWarning, digest

PROCESSES = (Process(("q",), {"q": 1}), Process(("q", "v"), {"q": -1, "v": 1}), Process(("v", "u0"), {"v": -1}))
MODELS: dict[str, Callable[[], Learned]] = {
    "linear": lambda: LinearDynamics(4),
    "linear, exactly collinear, no ridge": lambda: LinearDynamics(8, 0.0, choose=False),
    "neural": lambda: NeuralDynamics(NeuralSettings(hidden=(8,), members=2, rollout=2, steps=104, batch=8)),
    "neural-ode": lambda: NeuralODE(NeuralODESettings(hidden=(6,), substeps=1, rollout=1, steps=104, batch=8)),
    "sparse": lambda: SparseNeuralDynamics(
        SparseSettings(
            relus=2, context=1, hidden=(6,), rollout=1, dense_steps=30, rounds=2, round_steps=20, tune_steps=30, batch=8
        )
    ),
    "reactions": lambda: ReactionDynamics(
        ReactionSettings(PROCESSES, exponents=True, substeps=1, rollout=2, steps=60, batch=8)
    ),
}


class KilledError(Exception):
    pass


def observed(episodes: int = 8) -> Trajectories:
    data = collect(PlantSimulator(Oscillator(), 4), HeldLevels(), episodes=episodes, steps=20, seed=1)
    return Trajectories(data.y.abs() + 0.1, data.z, data.u, data.valid, data.period)


def numbers(model: Learned) -> str:
    return digest(dict(model.state_dict()))


def fitted(name: str, data: Trajectories) -> Learned:
    return MODELS[name]().bind(Oscillator().problem).fit(data)


def shifted(x: Tensor, offset: int) -> Tensor:
    """The same numbers at an address that is ``offset`` entries off the allocator's."""
    room = torch.empty(x.numel() + offset, dtype=x.dtype)
    room[offset:] = x.flatten()
    return room[offset:].reshape(x.shape)


def strewn(x: Tensor, offset: int) -> Tensor:
    """The same numbers as every second entry of a transposed tensor."""
    room = torch.full((x.shape[1], x.shape[0], 2 * x.shape[2] + 1), 7, dtype=x.dtype)
    view = room.transpose(0, 1)[..., offset % 2 : offset % 2 + 2 * x.shape[2] : 2]
    view.copy_(x)
    return view


def litter(seed: int) -> None:
    """Leave memory that allocators hand out again full of something else."""
    for size in (3, 8, 17, 60, 300, 2000):
        torch.full((size,), 1 + seed % 5, dtype=torch.int32)


def test_least_squares_do_not_depend_on_addresses() -> None:
    gen = torch.Generator().manual_seed(0)
    for k, d, o in ((50, 3, 1), (400, 17, 2), (999, 40, 8)):
        phi, target = (torch.randn(k, width, generator=gen, dtype=torch.float64) for width in (d, o))
        found = set()
        for i, (a, b) in enumerate(itertools.product(range(8), (0, 1, 3))):
            litter(i)
            x, y = shifted(phi, a), shifted(target, b)
            found.add(digest(ridge(x, y, 1e-10), affine_fit(x, y, 1e-6), ridge(x, y, 0.0)))
        assert len(found) == 1, (k, d, o)
        best = torch.linalg.lstsq(phi, target, driver="gelsd").solution
        assert torch.allclose(ridge(phi, target, 0.0), best, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_fits_do_not_depend_on_addresses_and_strides(name: str) -> None:
    data = observed()
    wanted = numbers(fitted(name, data))
    cases = [(shifted, 1), (strewn, 0)]
    for i, (move, offset) in enumerate(cases + [(shifted, j) for j in range(2, 16)] * name.startswith("linear")):
        litter(i)
        y, z, u = (move(part, offset + j) for j, part in enumerate((data.y, data.z, data.u)))
        moved = Trajectories(y, z, u, data.valid.T.contiguous().T, data.period)
        assert torch.equal(moved.y, data.y) and torch.equal(moved.u, data.u)
        assert numbers(fitted(name, moved)) == wanted, (move.__name__, offset)


def test_what_is_built_on_a_fit_is_equal_after_a_file() -> None:
    """Matrices of a model that was read from a file give the same filter, although a file aligns nothing."""
    model = fitted("linear", observed())
    assert isinstance(model, LinearDynamics)
    other = LinearDynamics(4)
    other.load_state_dict({name: shifted(t, 1) if t.dim() else t for name, t in model.state_dict().items()})
    filters = []
    for one in (model, other):
        system = one.state_space()
        eye = torch.eye(len(system.C), dtype=torch.float64)
        filters.append(KalmanFilter(system, system.W + 1e-3 * torch.eye(len(system.A)).double(), eye))
    assert torch.equal(filters[0].L, filters[1].L)
    assert numbers(model) == numbers(other)


def test_fits_are_equal_in_another_process() -> None:
    code = (
        "import sys; sys.path[:0] = [{here!r}]; import conftest; import test_equal_fits as t, torch\n"
        "torch.set_num_threads(1); junk = [bytearray(7 + 17 * i) for i in range(99)]; data = t.observed()\n"
        "print(*(t.numbers(t.fitted(name, data)) for name in ('linear', 'neural', 'reactions')))"
    )
    code = code.format(here=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    data = observed()
    assert run.stdout.split() == [numbers(fitted(name, data)) for name in ("linear", "neural", "reactions")]


# ------------------------------------------------------------------ fits that are killed


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Says after how many more steps of any optimiser the process dies; states are saved every few steps."""
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    left = [10**9]

    def dying(kind: type[torch.optim.Optimizer]) -> None:
        step = kind.step

        def mortal_step(self: torch.optim.Optimizer, *args: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return step(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(kind, "step", mortal_step)

    dying(torch.optim.Adam)
    dying(torch.optim.LBFGS)
    write, calls = resumable.write_checkpoint, itertools.count()

    def sometimes(*args: object) -> None:
        if next(calls) % 7 == 0 or args[2]["over"]:  # type: ignore[index]
            write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(resumable, "write_checkpoint", sometimes)
    yield lambda steps: left.__setitem__(0, steps)


TRAINED = [name for name in MODELS if not name.startswith("linear")]


@pytest.mark.parametrize("name", TRAINED)
def test_a_killed_fit_goes_on_to_the_same_bits(name: str, mortal: Callable[[int], None], tmp_path: Path) -> None:
    data = observed()
    whole, deaths = numbers(fitted(name, data)), 0
    for lifetime in (5, 28, 23, 10**9):
        mortal(lifetime)
        model = MODELS[name]().bind(Oscillator().problem)
        model.checkpoint = tmp_path
        try:
            model.fit(data)
        except KilledError:
            deaths += 1
    assert deaths >= 2 and numbers(model) == whole and model.earlier_seconds > 0
    # With a finished training nothing is left to do; other data are another training, which says so.
    mortal(0)
    assert numbers(model.fit(data)) == whole
    mortal(10**9)
    with pytest.warns(CheckpointWarning, match="other data, settings or weights"):
        model.fit(observed(4))
    assert numbers(model) == numbers(fitted(name, observed(4)))


def test_a_fit_killed_while_it_reports_goes_on(mortal: Callable[[int], None], tmp_path: Path) -> None:
    data = observed()

    def kill(fraction: float, text: str) -> None:
        raise KilledError

    model = MODELS["neural"]().bind(Oscillator().problem)
    model.checkpoint, model.progress = tmp_path, kill
    with pytest.raises(KilledError):
        model.fit(data)
    assert (tmp_path / "train.safetensors").is_file()
    model.progress = lambda fraction, text: None
    assert numbers(model.fit(data)) == numbers(fitted("neural", data))


def test_a_damaged_checkpoint_of_a_fit_is_reported(mortal: Callable[[int], None], tmp_path: Path) -> None:
    data = observed()
    model = MODELS["sparse"]().bind(Oscillator().problem)
    model.checkpoint = tmp_path
    model.fit(data)
    file = tmp_path / "prune-0.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(CheckpointWarning, match=r"prune-0.safetensors is damaged.*beginning again"):
        model.fit(data)
    assert numbers(model) == numbers(fitted("sparse", data))


@pytest.mark.parametrize("form", ["separable", "plain"])
def test_a_killed_operator_goes_on_to_the_same_bits(
    form: str, mortal: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_module, "PART", 5)
    data, points = uniform(3, 3), collocation(2, 2)
    settings = SwingSettings(form=form, rank=3, width=4, adam=20, lbfgs=12, polish=6)  # type: ignore[arg-type]

    def weights(operator: SwingOperator) -> str:
        return digest(dict(operator.network.state_dict()))

    whole = weights(SwingOperator(settings).fit(data, points))
    for lifetime in (9, 12, 2, 10**9):
        mortal(lifetime)
        operator = SwingOperator(settings)
        operator.checkpoint = tmp_path
        try:
            operator.fit(data, points)
        except KilledError:
            continue
    assert weights(operator) == whole and operator.earlier_seconds > 0
