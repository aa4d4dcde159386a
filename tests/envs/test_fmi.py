"""FMUs as plants: equal to the equation that they integrate, row by row for themselves, and failures as data."""

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.envs import units
from torch import Tensor

from steersman.envs import noise
from steersman.envs.checks import check_simulator
from steersman.envs.fmi import FmuSimulator
from steersman.envs.fmi.instance import EXTRACTED, Instance
from steersman.envs.gymnasium_adapters.outputs import Reading, Reference
from steersman.envs.objective import Limit, Objective, Quadratic
from steersman.envs.plant import Status
from steersman.experiments.checking import check

pytest.importorskip("fmpy", reason=units.NEEDS)

ACTIONS = {"torque": [-5.0, 5.0]}
FREE = {"damping": [0.05, 0.5], "angle": [0.2, 1.0]}
each_version = pytest.mark.parametrize("version", [2, 3])
LAW: dict[str, Any] = {}
exec(units.LAW, LAW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FMUs of both versions, with states that can be kept and without."""
    place = tmp_path_factory.mktemp("units")
    for version in (2, 3):
        for keeps in (True, False):
            units.swing(place / f"{version}{keeps}", version, keeps_states=keeps)
    return place


def goal(outputs: tuple[str, ...], actions: tuple[str, ...]) -> Objective:
    terms = Quadratic(name="angle", on="e", weights=(1.0,) + (0.0,) * (len(outputs) - 1))
    return Objective((terms, Quadratic(name="effort", on="u", weights=(0.1,) * len(actions))))


def simulator(folder: Path, version: int = 2, n: int = 3, *, keeps: bool = True, **more: Any) -> FmuSimulator:
    given = {"actions": ACTIONS, "start": FREE, "step": 0.01, "measured": ["angle", "speed"], "objective": goal}
    return FmuSimulator(n, str(folder / f"{version}{keeps}" / "Swing.fmu"), **(given | more))


def actions(n: int, k: int) -> Tensor:
    return 2.0 * torch.sin(torch.arange(n, dtype=torch.float64)[:, None] + 0.7 * k)


@each_version
def test_an_fmu_is_the_equation_that_it_integrates(folder: Path, version: int) -> None:
    simulated = simulator(folder, version, measured=["angle", "speed", "damping"])
    assert simulated.problem.measured == ("angle", "speed", "damping")
    assert (simulated.problem.period, simulated.problem.horizon) == (0.03, 20)
    simulated.reset(simulated.scenarios(noise.keys(0, 3)))
    y = simulated.measure().y
    damping, angle, speed = y[:, 2].tolist(), y[:, 0].tolist(), [0.0] * 3
    assert all(0.05 <= d <= 0.5 for d in damping) and all(0.2 <= a <= 1.0 for a in angle)
    assert len({*damping}) == len({*angle}) == 3
    for k in range(simulated.problem.horizon):
        u = actions(3, k)
        expected = torch.tensor(angle, dtype=torch.float64).square() + 0.1 * u[:, 0].square()
        t = simulated.step(u)
        torch.testing.assert_close(t.cost, expected, rtol=1e-15, atol=0)
        for row in range(3):
            for _ in range(3):
                angle[row], speed[row] = LAW["runge_kutta"](
                    angle[row], speed[row], float(u[row, 0]), damping[row], units.STEP
                )
        assert simulated.measure().y[:, :2].tolist() == [list(pair) for pair in zip(angle, speed, strict=True)]
    assert bool(t.truncated.all()) and t.status.tolist() == [0, 0, 0]
    simulated.close()


def test_draws_come_from_the_key_alone(folder: Path) -> None:
    one, both = simulator(folder, start={"angle": [0.2, 1.0]}), simulator(folder, start=FREE)
    for made in (one, both):
        made.reset(made.scenarios(noise.keys(4, 3)))
    assert torch.equal(one.measure().y, both.measure().y)
    both.reset(both.scenarios(noise.keys(4, 3).flip(0)))
    assert torch.equal(one.measure().y.flip(0), both.measure().y)


@pytest.mark.parametrize(("version", "keeps"), [(2, True), (2, False), (3, True)])
def test_the_contract_is_kept(folder: Path, version: int, keeps: bool) -> None:
    check_simulator(lambda n: simulator(folder, version, n, keeps=keeps, price=0.0, horizon=4), n=3)


@each_version
def test_going_back_repeats_nothing_where_the_fmu_keeps_its_state(
    folder: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []
    step = Instance.step

    def counted(self: Instance, time: float, length: float) -> bool:
        took.append(time)
        return step(self, time, length)

    monkeypatch.setattr(Instance, "step", counted)
    counts = {}
    for keeps in (True, False):
        made = simulator(folder, version, keeps=keeps)
        made.reset(made.scenarios(noise.keys(0, 3)))
        for k in range(4):
            made.step(actions(3, k))
        snapshot = made.snapshot()
        made.step(actions(3, 4))
        took.clear()
        made.restore(snapshot)
        counts[keeps] = len(took)
        assert (made.measure().k == 4).all()
        made.close()
    assert counts == {True: 0, False: 3 * 4 * 3}


def test_states_are_freed_with_their_snapshots_and_instances_with_the_simulator(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmpy.fmi2 import FMU2Slave

    freed: list[str] = []
    for name in ("freeFMUState", "freeInstance"):
        real = getattr(FMU2Slave, name)
        monkeypatch.setattr(
            FMU2Slave, name, lambda self, *a, name=name, real=real: (freed.append(name), real(self, *a))
        )
    path, made = list(sys.path), simulator(folder)
    made.reset(made.scenarios(noise.keys(0, 3)))
    kept = made.snapshot()
    made.snapshot()
    again = made.snapshot()
    assert freed == ["freeFMUState"] * 3
    made.reset(made.scenarios(noise.keys(1, 3)), torch.tensor([True, False, False]))
    assert freed[3:] == ["freeFMUState"] * 2 + ["freeInstance"]
    made.restore(kept)
    before = list(Path(tempfile.gettempdir()).glob(f"{EXTRACTED}*"))
    made.close()
    assert freed.count("freeInstance") == 2 + 3 and sys.path == path and len(again.states) == 3
    assert len(list(Path(tempfile.gettempdir()).glob(f"{EXTRACTED}*"))) < len(before)


def test_a_snapshot_of_another_simulator_is_no_state_of_this_one(folder: Path) -> None:
    one, other = simulator(folder), simulator(folder)
    for made, seed in ((one, 0), (other, 1)):
        made.reset(made.scenarios(noise.keys(seed, 3)))
        made.step(actions(3, 0))
    other.snapshot()
    other.restore(one.snapshot())
    assert torch.equal(other.measure().y, one.measure().y)


def test_worker_processes_give_the_same(folder: Path) -> None:
    found = []
    for workers in (0, 2):
        made = simulator(folder, n=2, workers=workers, start=FREE | {"fault": [0, 1]}, price=1.0)
        made.reset(made.scenarios(noise.keys(3, 2)))
        for k in range(5):
            made.step(actions(2, k))
        snapshot = made.snapshot()
        t = made.step(actions(2, 5))
        y = made.measure().y
        made.restore(snapshot)
        made.step(actions(2, 5))
        assert torch.equal(made.measure().y, y)
        found.append((y, t.status, t.cost, made.notes))
        made.close()
    assert found[0][1].tolist() != [0, 0] and found[0][3] == found[1][3]
    assert all(torch.equal(found[0][i], found[1][i]) for i in range(3))


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("fault", "note"),
    [(1, "the rope is torn"), (2, "'inverse' was inf"), (4, "its start was refused")],
)
@each_version
def test_what_fails_is_flagged_and_told(folder: Path, version: int, fault: int, note: str) -> None:
    # A fault of 0 or of the other number, drawn for each scenario.
    with_faults = {"fault": [0, fault]} if fault == 1 else {"fault": fault}
    made = simulator(folder, version, start=FREE | with_faults, measured=["angle", "inverse"], price=7.0)
    made.reset(made.scenarios(noise.keys(3, 3)))
    cost = torch.zeros(3, dtype=torch.float64)
    for k in range(made.problem.horizon):
        t = made.step(actions(3, k))
        cost += t.cost
        assert bool(torch.isfinite(made.measure().y).all())
    expected = [3, 0, 0] if fault == 1 else [3, 3, 3]
    assert sorted(t.status.tolist()) == sorted(expected)
    told = " ".join(made.notes)
    assert note in told and f"{expected.count(3)} row" in told
    assert bool((cost[t.status == 3] > 7.0 * (20 - 5)).all()) and bool((cost[t.status == 0] < 60.0).all())
    made.close()


@each_version
def test_an_fmu_that_ends_the_simulation_ends_its_rows(folder: Path, version: int) -> None:
    ends = {"end": Status.ENDED, "failure": Status.TERMINATED, "goal": Status.REACHED}
    for termination, status in ends.items():
        reading = Reading(termination=termination)  # type: ignore[arg-type]
        made = simulator(folder, version, start={"fault": 3}, reading=reading, price=1.0)
        made.reset(made.scenarios(noise.keys(0, 3)))
        for k in range(6):
            t = made.step(actions(3, k))
        assert t.status.tolist() == [int(status)] * 3 and (made.measure().k == 4).all()
        made.close()


def test_outputs_beyond_their_limits_end_a_row(folder: Path) -> None:
    def limited(outputs: tuple[str, ...], names: tuple[str, ...]) -> Objective:
        limit = Limit(name="angle", index=outputs.index("angle"), low=-2.0, high=0.6)
        return Objective(goal(outputs, names).stage, failure=3.0, limits=(limit,))

    made = simulator(folder, objective=limited, performed=["speed", "angle"], start={"angle": 0.5})
    made.reset(made.scenarios(noise.keys(0, 3)))
    for _ in range(8):
        t = made.step(torch.tensor([[5.0], [5.0], [-5.0]], dtype=torch.float64))
    assert t.status.tolist() == [0, 0, 0]  # gravity wins
    for _ in range(12):
        t = made.step(torch.tensor([[5.0], [5.0], [-5.0]], dtype=torch.float64))
    made = simulator(folder, objective=limited, performed=["speed", "angle"], start={"angle": 0.5, "speed": 3.0})
    made.reset(made.scenarios(noise.keys(0, 3)))
    t = made.step(torch.tensor([[5.0], [-5.0], [torch.nan]], dtype=torch.float64))
    t = made.step(torch.tensor([[5.0], [-5.0], [0.0]], dtype=torch.float64))
    assert t.status.tolist() == [1, 1, 3]


# ------------------------------------------------------------------ signals


@each_version
def test_whole_numbers_and_truth_values_are_integer_actions(folder: Path, version: int) -> None:
    chosen = {"torque": [-5.0, 5.0], "gear": [-1, 2], "brake": {}}
    made = simulator(folder, version, actions=chosen, start={})
    assert made.actions.integer == (False, True, True) and made.actions.upper == (5.0, 2.0, 1.0)
    made.reset(made.scenarios(noise.keys(0, 3)))
    plain = simulator(folder, version, start={})
    plain.reset(plain.scenarios(noise.keys(0, 3)))
    for _ in range(4):
        made.step(torch.tensor([[1.5, 2.2, 0.0], [1.5, -1.0, 0.4], [3.0, 1.0, 1.0]], dtype=torch.float64))
        plain.step(torch.tensor([[3.0], [-1.5], [0.0]], dtype=torch.float64))
    assert torch.equal(made.measure().y, plain.measure().y)


def test_an_action_is_counted_from_its_neutral_value(folder: Path) -> None:
    made = simulator(folder, actions={"torque": {"low": -1.0, "high": 5.0, "neutral": 2.0}})
    assert (made.actions.lower, made.actions.upper) == ((-3.0,), (3.0,))
    plain = simulator(folder)
    for one, u in ((made, 0.5), (plain, 2.5)):
        one.reset(one.scenarios(noise.keys(0, 3)))
        one.step(torch.full((3, 1), u, dtype=torch.float64))
    assert torch.equal(made.measure().y, plain.measure().y)


def test_references_are_constant_or_measured(folder: Path) -> None:
    reading = Reading(
        references={"angle": Reference(observation=("told",)), "speed": Reference(value=0.5)}, exogenous=("damping",)
    )
    made = simulator(folder, measured=["angle", "speed", "told", "damping"], reading=reading, step=0.03)
    assert made.problem.exogenous == (2, 3)
    made.reset(made.scenarios(noise.keys(0, 3)))
    for k in range(3):
        assert made.measure(1).r[:, :, :2].tolist() == [[[float(k), 0.5]] * 2] * 3
        angle = made.measure().y[:, 0]
        t = made.step(torch.zeros(3, 1, dtype=torch.float64))
        torch.testing.assert_close(t.cost, (angle - k).square(), rtol=1e-15, atol=0)


def test_modules_of_one_name_are_two_models(folder: Path, tmp_path: Path) -> None:
    other = units.build(tmp_path, units.text(2).replace("PULL = 9.81", "PULL = -9.81"), 2)
    fall, rise = simulator(folder), simulator(folder, start=FREE, n=3)
    rise = FmuSimulator(3, other, ACTIONS, start=FREE, step=0.01, measured=["angle", "speed"], objective=goal)
    for _ in range(2):
        for made in (fall, rise):
            made.reset(made.scenarios(noise.keys(0, 3)))
            made.step(torch.zeros(3, 1, dtype=torch.float64))
        assert bool((fall.measure().y[:, 1] < 0).all()) and bool((rise.measure().y[:, 1] > 0).all())


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"actions": {}}, "actions: name an input with its bounds; Swing.fmu has torque, gear, brake"),
        (
            {"actions": {"torqe": [0, 1]}},
            r"actions.torqe: Swing.fmu has no variable 'torqe' \(did you mean 'torque'\?\)",
        ),
        (
            {"actions": {"angle": [0, 1]}},
            "actions.angle: 'angle' is output, not input; its inputs: torque, gear, brake",
        ),
        ({"actions": {"torque": {}}}, "actions.torque: needs finite low <= high, got -inf and inf; write torque = "),
        ({"actions": {"torque": [1, 0]}}, "needs finite low <= high, got 1.0 and 0.0"),
        ({"actions": {"torque": [0, 1, 2]}}, r"actions.torque: must be two numbers \[low, high\], got \[0, 1, 2\]"),
        ({"actions": {"torque": {"hi": 1}}}, "actions.torque.hi: unknown key; known: low, high, neutral"),
        ({"actions": {"torque": {"low": 0, "high": 1, "neutral": 2}}}, "neutral: must lie in 0.0 .. 1.0, got 2.0"),
        ({"measured": ["angel"]}, r"measured: Swing.fmu has no variable 'angel' \(did you mean 'angle'\?\)"),
        ({"measured": ["angle", "angle"]}, "measured: names must differ, got angle, angle"),
        ({"measured": "angle"}, "measured: must be a list of names, got 'angle'"),
        ({"performed": ["nothing"]}, "performed: Swing.fmu has no variable 'nothing'"),
        ({"start": {"inverse": 1.0}}, "start.inverse: the FMU computes it by itself; what can be set: torque, gear,"),
        ({"start": {"torque": 1.0}}, "start.torque: 'torque' is an action; its start is the neutral action"),
        ({"start": {"fault": 0.5}}, "start.fault: 'fault' takes whole numbers, got 0.5"),
        ({"start": {"damping": "much"}}, "start.damping: must be two numbers .*, got 'much'"),
        ({"start": {"damping": [2.0, 1.0]}}, r"start.damping: must be a number or \[low, high\], got \[2.0, 1.0\]"),
        ({"step": 0.02}, "step: period must be a whole number of communication steps, got 0.03 and 0.02"),
        ({"period": -1.0}, "period must be positive"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"objective": None}, "objective: an FMU holds no costs; state what an episode costs"),
        ({"device": "cuda"}, "FMUs run on the CPU, got device 'cuda'"),
        ({"reading": Reading(names=("a",))}, "names and outputs: an FMU says what its variables are called"),
        ({"reading": Reading(references={"angle": Reference(info="x")})}, "references.angle: an FMU has no info"),
        ({"reading": Reading(exogenous=("x",))}, "exogenous: no output 'x'"),
    ],
)
def test_errors_name_the_setting_and_the_remedy(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulator(folder, **given)


def rewritten(
    source: Path, target: Path, *changes: tuple[str, str], without: str = "nothing at all", broken: str = ""
) -> str:
    """An FMU with another description, or fewer or broken files."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "modelDescription.xml":
                for before, after in changes:
                    assert before.encode() in content
                    content = content.replace(before.encode(), after.encode())
            if without not in name:
                new.writestr(name, b"no library" if broken and broken in name else content)
    return str(target)


def test_what_is_no_fmu_for_co_simulation_is_refused(folder: Path, tmp_path: Path) -> None:
    source = folder / "2True" / "Swing.fmu"

    def refused(file: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FmuSimulator(2, file, ACTIONS, objective=goal)

    (tmp_path / "text.fmu").write_text("no zip")
    refused(str(tmp_path / "text.fmu"), "fmu: text.fmu is no FMU .*; export the model again")
    refused(rewritten(source, tmp_path / "a.fmu", without="modelDescription"), "fmu: a.fmu is no FMU")
    refused(
        rewritten(
            source, tmp_path / "b.fmu", ("<CoSimulation", "<ModelExchange"), ("</CoSimulation", "</ModelExchange")
        )
        if b"</CoSimulation" in zipfile.ZipFile(source).read("modelDescription.xml")
        else rewritten(source, tmp_path / "b.fmu", ("<CoSimulation", "<ModelExchange")),
        "fmu: b.fmu is for model exchange, without a solver; export it for co-simulation",
    )
    refused(rewritten(source, tmp_path / "c.fmu", without="binaries/"), "c.fmu holds no library for .*; export it for")
    refused(rewritten(source, tmp_path / "d.fmu", ("<ModelVariables>", "<Nothing")), "d.fmu has a description that can")
    once = ('canBeInstantiatedOnlyOncePerProcess="false"', 'canBeInstantiatedOnlyOncePerProcess="true"')
    refused(
        rewritten(source, tmp_path / "e.fmu", once), "workers: .* allows one instance in a process; set workers to 2"
    )
    with pytest.raises(ValueError, match=r"failure: .* allows one instance in a process, .*; state failure, the price"):
        FmuSimulator(1, str(tmp_path / "e.fmu"), ACTIONS, objective=goal).price()
    bare = rewritten(source, tmp_path / "f.fmu", ("stepSize=", "tolerance="))
    refused(bare, "period: f.fmu states no step size of its own; give the control period in s")
    bare = rewritten(source, tmp_path / "g.fmu", ("stopTime=", "tolerance="))
    refused(bare, "horizon: g.fmu states no stop time; give the control steps of an episode")
    with pytest.raises(
        FileNotFoundError, match=r"fmu: no file 'none.fmu' from .*; give its path from the current folder"
    ):
        FmuSimulator(2, "none.fmu", ACTIONS, objective=goal)


def test_a_library_that_cannot_be_loaded_is_an_error_that_says_so(folder: Path, tmp_path: Path) -> None:
    here = Path.cwd()
    file = rewritten(folder / "2True" / "Swing.fmu", tmp_path / "x.fmu", broken="binaries/")
    made = FmuSimulator(1, file, ACTIONS, objective=goal)
    with pytest.raises(RuntimeError, match=r"x.fmu cannot be instantiated here \(.*; see what its export needs"):
        made.reset(made.scenarios(noise.keys(0, 1)))
    assert Path.cwd() == here
    made.close()


def test_the_command_checks_an_fmu(folder: Path) -> None:
    settings = {"fmu": str(folder / "3False" / "Swing.fmu"), "actions": ACTIONS, "start": FREE, "horizon": 4}
    assert len(check("steersman.envs.fmi:FmuSimulator", settings=settings)) == 4
