"""SBML models as plants: against exact solutions and scipy, by the contract of simulators, and what is refused."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torch import Tensor

from steersman.envs import noise
from steersman.envs.checks import check_simulator
from steersman.envs.objective import Limit, Objective, Quadratic
from steersman.envs.plant import Status
from steersman.envs.scenarios import Scenarios

roadrunner = pytest.importorskip("roadrunner")

from steersman.envs.sbml import SbmlSimulator, model  # noqa: E402

V1, V2, K10, K12, K21 = 5.0, 10.0, 0.2, 0.3, 0.1
"""Volumes and rate constants of the two compartments."""


# ------------------------------------------------------------------ files


def math_ml(text: str) -> str:
    """MathML of an expression in prefix form: ``(times k A)``."""
    out, words = "", text.replace("(", " ( ").replace(")", " ) ").split()
    for before, word in zip(["", *words], words, strict=False):
        if word == "(":
            out += "<apply>"
        elif word == ")":
            out += "</apply>"
        elif before == "(":
            out += f"<{word}/>"
        elif word == "t":
            out += '<csymbol encoding="text" definitionURL="http://www.sbml.org/sbml/symbols/time">t</csymbol>'
        else:
            out += f"<cn>{word}</cn>" if word.replace(".", "").isdigit() else f"<ci>{word}</ci>"
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML">{out}</math>'


def species(name: str, place: str, start: str, boundary: bool = False) -> str:
    return (
        f'<species id="{name}" compartment="{place}" {start} hasOnlySubstanceUnits="false" '
        f'boundaryCondition="{str(boundary).lower()}" constant="false"/>'
    )


def reaction(name: str, left: str, right: str, rate: str) -> str:
    sides = "".join(
        f'<listOf{kind}><speciesReference species="{s}" stoichiometry="1" constant="true"/></listOf{kind}>'
        for kind, s in (("Reactants", left), ("Products", right))
        if s
    )
    law = f"<kineticLaw>{math_ml(rate)}</kineticLaw>"
    return f'<reaction id="{name}" reversible="false" fast="false">{sides}{law}</reaction>'


def event(trigger: str, variable: str, value: str, delay: str = "") -> str:
    wait = f"<delay>{math_ml(delay)}</delay>" if delay else ""
    return (
        f'<event useValuesFromTriggerTime="true"><trigger initialValue="true" persistent="true">{math_ml(trigger)}'
        f"</trigger>{wait}<listOfEventAssignments>"
        f'<eventAssignment variable="{variable}">{math_ml(value)}</eventAssignment></listOfEventAssignments></event>'
    )


def document(
    parameters: dict[str, float],
    *,
    volumes: dict[str, float] | None = None,
    species: str = "",
    initial: dict[str, str] | None = None,
    rates: dict[str, str] | None = None,
    rules: dict[str, str] | None = None,
    reactions: str = "",
    events: str = "",
) -> str:
    def listed(name: str, inside: str) -> str:
        return f"<listOf{name}>{inside}</listOf{name}>" if inside else ""

    size = '<compartment id="{}" size="{}" constant="true"/>'
    parts = {
        "Compartments": "".join(size.format(*pair) for pair in (volumes or {}).items()),
        "Species": species,
        "Parameters": "".join(f'<parameter id="{n}" value="{v}" constant="false"/>' for n, v in parameters.items()),
        "InitialAssignments": "".join(
            f'<initialAssignment symbol="{n}">{math_ml(v)}</initialAssignment>' for n, v in (initial or {}).items()
        ),
        "Rules": "".join(f'<rateRule variable="{n}">{math_ml(v)}</rateRule>' for n, v in (rates or {}).items())
        + "".join(f'<assignmentRule variable="{n}">{math_ml(v)}</assignmentRule>' for n, v in (rules or {}).items()),
        "Reactions": reactions,
        "Events": events,
    }
    inside = "".join(listed(name, part) for name, part in parts.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?><sbml xmlns="http://www.sbml.org/sbml/level3/version1/core" level="3" '
        f'version="1"><model id="m">{inside}</model></sbml>'
    )


def pharmacokinetics(**change: Any) -> str:
    """Two compartments, an infusion, and what hangs on other numbers at the start: X by an assignment, A by a volume."""
    whole: dict[str, Any] = {
        "parameters": {"rate": 0.0, "k10": K10, "k12": K12, "k21": K21, "half": 0.0, "total": 0.0},
        "volumes": {"V1": V1, "V2": V2},
        "species": species("A", "V1", 'initialConcentration="2"') + species("B", "V2", 'initialAmount="3"')
        + species("X", "V2", 'initialConcentration="1"', boundary=True),
        "initial": {"half": "(divide k12 2)", "X": "(times 7 half)"},
        "rules": {"total": "(plus (times A V1) (times B V2))"},
        "reactions": reaction("given", "", "A", "rate") + reaction("cleared", "A", "", "(times k10 A V1)")
        + reaction("over", "A", "B", "(times k12 A V1)") + reaction("back", "B", "A", "(times k21 B V2)"),
    }  # fmt: skip
    return document(**(whole | change))


RATES = np.array([[-K10 - K12, K21], [K12, -K21]])
"""Of the amounts in the two compartments."""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "pk.xml").write_text(pharmacokinetics())
    return str(tmp_path / "pk.xml")


def costs(*weights: float) -> Objective:
    return Objective((Quadratic(name="e", on="e", weights=weights),))


def pk(file: str, n: int = 3, **change: Any) -> SbmlSimulator:
    settings: dict[str, Any] = {
        "model": file, "actions": {"rate": (0.0, 10.0)}, "measured": ("A", "B"), "period": 0.7, "horizon": 12,
        "objective": costs(1.0, 0.0), "price": 1.0,
    }  # fmt: skip
    return SbmlSimulator(n, **(settings | change))


def run(simulator: SbmlSimulator, actions: Tensor, seed: int = 0) -> Tensor:
    """Outputs ``[n, steps + 1, nz]`` under actions ``[n, steps, m]``."""
    simulator.reset(Scenarios(noise.keys(seed, simulator.n)))
    found = [simulator.perform()]
    for k in range(actions.shape[1]):
        simulator.step(actions[:, k])
        found.append(simulator.perform())
    return torch.stack(found, dim=1)


def some_actions(n: int, steps: int, m: int = 1, high: float = 10.0) -> Tensor:
    return high * torch.rand(n, steps, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def exact(amounts: Any, rates: Any, period: float) -> list[Any]:
    """Amounts under infusions into the first compartment, by the matrix exponential."""
    big = np.zeros((3, 3))
    big[:2, :2], big[0, 2] = RATES, 1.0
    step, found = expm(big * period), [np.asarray(amounts)]
    for u in rates:
        found.append((step @ np.append(found[-1], u))[:2])
    return found


# ------------------------------------------------------------------ known solutions


def test_two_compartments_follow_the_matrix_exponential(file: str) -> None:
    u = some_actions(3, 10)
    found = run(pk(file), u)
    for row in range(3):
        np.testing.assert_allclose(found[row], exact([2 * V1, 3.0], u[row, :, 0], 0.7), rtol=2e-7)
    coarse = run(pk(file, relative_tolerance=1e-3), u)
    assert 1e-6 < float((coarse / found - 1).abs().max()) < 1e-2


def test_rules_rates_and_concentrations_are_outputs_and_the_action_is_still_there(file: str) -> None:
    names = ("[A]", "total", "cleared", "given", "V1", "[X]", "time")
    simulator = pk(file, n=1, measured=names, performed=("A",), objective=costs(1.0))
    run(simulator, torch.full((1, 3, 1), 4.0, dtype=torch.float64))
    a, b = exact([2 * V1, 3.0], [4.0] * 3, 0.7)[-1]
    want = [a / V1, a + b, K10 * a, 4.0, V1, 7 * K12 / 2, 2.1]
    np.testing.assert_allclose(simulator.measure().y[0], want, rtol=1e-7)
    assert simulator.problem.exogenous == (6,) and simulator.problem.performed == ("A",)


def test_a_dose_is_added_and_a_boundary_species_is_held(tmp_path: Path) -> None:
    text = document(
        {"k": 0.5}, volumes={"V": 2.0}, reactions=reaction("in", "X", "A", "(times k X)") + reaction("out", "A", "", "(times k A)"),
        species=species("A", "V", 'initialAmount="1"') + species("X", "V", 'initialAmount="4"', boundary=True),
    )  # fmt: skip
    (tmp_path / "dose.xml").write_text(text)
    actions = {"A": (0.0, 5.0), "[X]": (1.0, 8.0)}
    simulator = pk(str(tmp_path / "dose.xml"), n=2, actions=actions, measured=("A", "[X]"))
    u = torch.tensor([[3.0, 1.0], [0.0, 6.0]], dtype=torch.float64)
    found = run(simulator, u[:, None].expand(2, 2, 2))
    assert found[:, 0].tolist() == [[1.0, 1.0]] * 2  # the neutral action holds at the start
    for row, (dose, held) in enumerate(u.tolist()):
        a = 1.0
        for k in range(2):
            rest = held * 2.0  # amounts: k [X] is what comes in, k [A] = k a / 2 what leaves
            a = rest + (a + dose - rest) * math.exp(-0.25 * 0.7)
            assert found[row, k + 1].tolist() == pytest.approx([a, held], rel=1e-7)


def test_an_oscillator_follows_scipy(tmp_path: Path) -> None:
    text = document(
        {"prey": 10.0, "hunters": 5.0, "hunt": 0.0},
        rates={
            "prey": "(minus (times 1.1 prey) (plus (times 0.4 prey hunters) (times hunt prey)))",
            "hunters": "(minus (times 0.1 prey hunters) (times 0.4 hunters))",
        },
    )
    (tmp_path / "lv.xml").write_text(text)
    simulator = pk(
        str(tmp_path / "lv.xml"), n=2, actions={"hunt": (0.0, 1.0)}, measured=("prey", "hunters"), horizon=40
    )
    u = some_actions(2, 40, high=1.0)
    found = run(simulator, u)
    for row in range(2):
        x = np.array([10.0, 5.0])
        for k in range(40):
            hunt = float(u[row, k, 0])

            def slope(_: float, s: Any, hunt: float = hunt) -> list[float]:
                return [1.1 * s[0] - 0.4 * s[0] * s[1] - hunt * s[0], 0.1 * s[0] * s[1] - 0.4 * s[1]]

            x = solve_ivp(slope, (0, 0.7), x, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
            np.testing.assert_allclose(found[row, k + 1], x, rtol=1e-5)
    assert float(found[:, :, 0].max()) > 10 * float(found[:, :, 0].min())


# ------------------------------------------------------------------ scenarios


@pytest.mark.parametrize(
    ("name", "value", "edit"),
    [
        ("k10", 0.5, {"parameters": {"k10": 0.5}}),  # nothing else hangs on it
        ("k12", 0.9, {"parameters": {"k12": 0.9}}),  # X does, through half
        ("V1", 8.0, {"volumes": {"V1": 8.0}}),  # so does the amount of A
        ("V2", 20.0, {"volumes": {"V2": 20.0}}),  # but not that of B
        ("[A]", 3.0, {"species": ("initialConcentration", 3.0)}),
        ("A", 3.0, {"species": ("initialAmount", 3.0)}),
    ],
)
def test_a_scenario_is_the_file_with_other_numbers(
    tmp_path: Path, file: str, name: str, value: float, edit: dict[str, Any]
) -> None:
    whole: dict[str, Any] = {
        "parameters": {"rate": 0.0, "k10": K10, "k12": K12, "k21": K21, "half": 0.0, "total": 0.0},
        "volumes": {"V1": V1, "V2": V2},
    }
    for part, change in edit.items():
        if part == "species":
            whole["species"] = species("A", "V1", f'{change[0]}="{change[1]}"') + "".join(
                (species("B", "V2", 'initialAmount="3"'), species("X", "V2", 'initialConcentration="1"', boundary=True))
            )
        else:
            whole[part] |= change
    (tmp_path / "edited.xml").write_text(pharmacokinetics(**whole))
    outputs = ("A", "[A]", "B", "[B]", "X", "[X]", "total", "half", "V1", "V2", "k10", "k12")
    u = some_actions(1, 3)
    more = {"measured": outputs, "objective": costs(*(1.0,) * 12)}
    found = run(pk(file, n=1, parameters={name: value}, **more), u)
    assert torch.equal(found, run(pk(str(tmp_path / "edited.xml"), n=1, **more), u))
    assert not torch.equal(found, run(pk(file, n=1, **more), u))


def test_parameters_are_drawn_in_their_ranges_from_the_key_alone(file: str) -> None:
    ranges = {"k10": (0.1, 0.5), "V1": (4.0, 6.0), "k21": 0.15}
    simulator = pk(file, n=40, measured=("k10", "V1", "k21"), objective=costs(1.0, 0.0, 0.0), parameters=ranges)
    simulator.reset(Scenarios(noise.keys(0, 40)))
    y = simulator.measure().y
    for column, (low, high) in enumerate(((0.1, 0.5), (4.0, 6.0))):
        drawn, width = y[:, column], high - low
        assert low <= float(drawn.min()) < low + 0.15 * width and high - 0.15 * width < float(drawn.max()) <= high
    assert bool((y[:, 2] == 0.15).all()) and abs(float(torch.corrcoef(y[:, :2].T)[0, 1])) < 0.5
    few = pk(file, n=2, measured=("k10", "V1", "k21"), objective=costs(1.0, 0.0, 0.0), parameters=ranges)
    few.reset(Scenarios(noise.keys(0, 40)[[7, 31]]))
    assert torch.equal(few.measure().y, y[[7, 31]])


# ------------------------------------------------------------------ the contract


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"k10": (0.1, 0.5)}},
        {"parameters": {"V1": (4.0, 6.0), "k12": (0.1, 0.4)}},
        {"actions": {"B": (0.0, 3.0)}, "measured": ("[A]",), "objective": costs(1.0)},
    ],
)
def test_it_keeps_the_contract_of_simulators(file: str, change: dict[str, Any]) -> None:
    check_simulator(lambda n: pk(file, n=n, **change))


def test_one_compiled_model_serves_all_rows(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    u, ranges = some_actions(5, 6), {"k10": (0.1, 0.5)}
    shared = run(pk(file, n=5, parameters=ranges), u)
    read = model.read_model(file)
    monkeypatch.setattr(read, "alone", True)
    alone = pk(file, n=5, parameters=ranges)
    torch.testing.assert_close(run(alone, u), shared, rtol=1e-12, atol=1e-12)  # the solver's tolerance is 1e-8
    assert len(alone._local._source._engines) == 5  # type: ignore[attr-defined]


def test_events_happen_between_control_steps_and_wait_across_them(tmp_path: Path) -> None:
    """``q' = -q``, which is set to 10 the time of 0.75 after it has fallen below 0.4."""
    free = document({"q": 1.0, "v": 0.0}, rates={"q": "(minus q)"}, events=event("(lt q 0.4)", "q", "10", "0.75"))
    (tmp_path / "free.xml").write_text(free)
    make = partial(pk, str(tmp_path / "free.xml"), actions={"v": (0.0, 1.0)}, measured=("q",), objective=costs(1.0))
    happens = math.log(1 / 0.4) + 0.75
    for period in (0.25, 0.3, 2.0):
        steps = int(2.5 / period)
        found = run(make(n=2, period=period), torch.zeros(2, steps, 1, dtype=torch.float64))[0, :, 0]
        t = period * np.arange(steps + 1)
        np.testing.assert_allclose(found, np.where(t < happens, np.exp(-t), 10 * np.exp(happens - t)), rtol=1e-5)
    check_simulator(lambda n: make(n=n, horizon=10), steps=6)


def test_a_row_that_fails_is_flagged_and_leaves_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``q' = a q^2`` reaches infinity at 1 / a."""
    (tmp_path / "blow.xml").write_text(document({"q": 1.0, "a": 0.0}, rates={"q": "(times a q q)"}))
    make = partial(
        pk,
        str(tmp_path / "blow.xml"),
        n=3,
        actions={"a": (-1.0, 1.0)},
        measured=("q",),
        objective=costs(1.0),
        price=5.0,
    )
    u = torch.tensor([[-1.0], [1.0], [0.5]], dtype=torch.float64)
    simulator = make()
    found = run(simulator, u[:, None].expand(3, 4, 1))
    assert simulator.step(u).status.tolist() == [int(Status.OK), int(Status.DIVERGED), int(Status.DIVERGED)]
    assert torch.isfinite(found).all() and float(found[1, 1, 0]) == pytest.approx(1 / 0.3, rel=1e-5)
    assert found[1, 1:].unique().numel() == 1
    alone = run(make(n=1), u[:1, None].expand(1, 4, 1))
    assert torch.equal(found[:1], alone)
    (note,) = simulator.notes
    assert note.startswith("2 rows ended as diverged because the integration failed (CVODE")
    said = capfd.readouterr()
    assert not said.out and not said.err


def test_a_failure_costs_the_price_of_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "blow.xml").write_text(document({"q": 1.0, "a": 0.0}, rates={"q": "(times a q q)"}))
    settings = {"actions": {"a": (-1.0, 1.0)}, "measured": ("q",), "objective": costs(1.0)}
    simulator = pk(str(tmp_path / "blow.xml"), n=2, price=5.0, **settings)
    simulator.reset(Scenarios(noise.keys(0, 2)))
    for k in range(2):
        t = simulator.step(torch.tensor([[1.0], [math.nan if k else 0.0]], dtype=torch.float64))
    assert t.cost.tolist() == pytest.approx([5.0 * 11] * 2, abs=15) and t.ended.all()
    found = pk(str(tmp_path / "blow.xml"), n=1, price=None, **settings)
    assert found.price() == 1.0  # the dearest step that does not itself end in infinity


def test_a_start_that_is_no_number_ends_with_its_first_step(file: str, tmp_path: Path) -> None:
    text = pharmacokinetics(initial={"half": "(ln 0)"})
    (tmp_path / "nan.xml").write_text(text)
    simulator = pk(str(tmp_path / "nan.xml"), n=1, measured=("A", "half"))
    simulator.reset(Scenarios(noise.keys(0, 1)))
    assert torch.isfinite(simulator.measure().y).all()
    t = simulator.step(torch.zeros(1, 1, dtype=torch.float64))
    assert int(t.status) == int(Status.DIVERGED) and float(t.terms["failure"]) == 12.0
    assert simulator.notes == ("1 row ended as diverged because 'half' was -inf",)


def test_limits_end_an_episode_as_failed(file: str) -> None:
    limited = Objective(costs(1.0, 0.0).stage, limits=(Limit(name="A", index=0, low=-1.0, high=12.0),))
    simulator = pk(file, n=2, objective=limited, price=2.0)
    simulator.reset(Scenarios(noise.keys(0, 2)))
    u = torch.tensor([[0.0], [10.0]], dtype=torch.float64)
    t = simulator.step(u)
    assert t.status.tolist() == [int(Status.OK), int(Status.TERMINATED)] and float(simulator.perform()[1, 0]) > 12


def test_costs_are_of_errors_from_the_references(file: str) -> None:
    from steersman.envs.gymnasium_adapters.outputs import Reading, Reference

    simulator = pk(file, n=1, reading=Reading(references={"A": Reference(value=4.0)}))
    simulator.reset(Scenarios(noise.keys(0, 1)))
    assert simulator.measure(preview=1).r.tolist() == [[[4.0, 0.0]] * 2]
    assert float(simulator.step(torch.ones(1, 1, dtype=torch.float64)).cost) == pytest.approx((2 * V1 - 4.0) ** 2)


@pytest.mark.slow
def test_worker_processes_give_the_same_numbers(file: str) -> None:
    u = some_actions(3, 4)
    simulator = pk(file, workers=2, parameters={"k10": (0.1, 0.5)})
    try:
        assert torch.equal(run(simulator, u), run(pk(file, parameters={"k10": (0.1, 0.5)}), u))
    finally:
        simulator.close()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "nowhere.xml"}, r"model: there is no file nowhere\.xml \(looked for in /"),
        ({"measured": ("A", "cleard")}, "measured: the model has no symbol 'cleard' .did you mean 'cleared'"),
        ({"measured": ("[k10]",)}, r"measured: the model has no symbol '\[k10\]'"),
        ({"performed": ("Q",)}, "performed: the model has no symbol 'Q'.*; known: A, B"),
        (
            {"actions": {"rte": (0.0, 1.0)}},
            r"actions: the model has no parameter or species 'rte' \(did you mean 'rate'",
        ),
        ({"actions": {"total": (0.0, 1.0)}}, "actions: 'total' is set by an assignment rule of the model; choose what"),
        ({"actions": {"[A]": (0.0, 1.0)}}, r"actions: '\[A\]' of a reacting species: a dose is an amount, 'A'"),
        ({"actions": {"V1": (0.0, 1.0)}}, "actions: the model has no parameter or species 'V1'"),
        ({"actions": {"rate": (1.0, 0.0)}}, r"actions\.rate: give least and largest value.*got \(1\.0, 0\.0\)"),
        ({"actions": {"rate": (0.0, math.inf)}}, r"actions\.rate: give least and largest value"),
        ({"actions": {}}, "actions: name at least one symbol"),
        ({"measured": ()}, "measured: name at least one symbol"),
        ({"parameters": {"k1": 1.0}}, r"parameters: the model has no parameter, compartment or species 'k1' \(did you"),
        ({"parameters": {"total": 1.0}}, "parameters: 'total' is set by an assignment rule"),
        ({"parameters": {"half": 1.0}}, "parameters: 'half' is set by an initial assignment"),
        ({"parameters": {"[X]": 1.0}}, r"parameters: '\[X\]' is set by an initial assignment"),
        ({"parameters": {"rate": 1.0}}, "parameters: 'rate' is an action"),
        ({"parameters": {"k10": (1.0, 2.0, 3.0)}}, r"parameters\.k10: give least and largest value.*got \(1\.0, 2"),
        ({"period": 0.0}, r"period must be positive and finite, got 0\.0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"most_steps": 0}, "most_steps must be at least 1, got 0"),
        ({"objective": None}, "objective: an SBML model has no costs"),
        ({"device": "meta"}, "SBML models run on the CPU, got device 'meta'"),
    ],
)
def test_bad_settings_are_named(file: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pk(file, **change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("this is no SBML", "model: libroadrunner does not take"),
        (document({"q": 1.0}, rates={"q": "(minus p)"}), "model: libroadrunner does not take"),
        (
            document({"q": 1.0, "r": 0.0}, rates={"q": "(minus q)"}, rules={"r": "(plus q q)"}),
            "actions: 'q' is set by a rate rule of the model",
        ),
        (
            document({"p": 1.0, "q": 1.0, "w": 0.0}, rates={"p": "(minus p)"}, rules={"w": "(plus q p)"}, events=event("(gt w 3)", "p", "0")),
            "actions: an event waits for 'q'",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_be_run_so_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        pk(str(tmp_path / "bad.xml"), actions={"q": (0.0, 1.0)}, measured=("q",), objective=costs(1.0))


def test_a_file_that_is_edited_is_compiled_again(file: str) -> None:
    u = some_actions(1, 2)
    before = run(pk(file, n=1), u)
    Path(file).write_text(pharmacokinetics().replace('id="k10" value="0.2"', 'id="k10" value="0.25"'))
    assert not torch.equal(run(pk(file, n=1), u), before)
