"""The page on models of other tools: its examples are run as they stand."""

import json
import re
from pathlib import Path

import pytest

from steersman.experiments.checking import check
from steersman.experiments.cli import main
from steersman.experiments.comparison.compare import check_problems
from steersman.experiments.spec.comparison import read_spec
from steersman.experiments.spec.plan import plan
from steersman.experiments.spec.settings import SpecError

pytest.importorskip("roadrunner")
pytest.importorskip("control")
PAGE = (Path(__file__).parents[2] / "experiments" / "exchange-formats.md").read_text()
(MODEL,) = re.findall(r"```xml\n(.*?)```", PAGE, flags=re.DOTALL)
INFUSION, MOTOR = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("infusion.xml").write_text(MODEL)
    quick = INFUSION.replace("episodes = 50", "episodes = 4").replace("episodes = 16", "episodes = 6")
    Path("infusion.toml").write_text(quick.replace("tune = 12", "tune = 3"))
    return tmp_path


def compared(file: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """Cost by controller."""
    assert main(["compare", file, "--workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found.get("failures")
    return {score["controller"]: score["cost"] for score in found["scores"]}


def test_controllers_are_compared_on_an_sbml_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost = compared("infusion.toml", capsys)
    assert cost["zero"] == pytest.approx(24 * 16.0)  # nothing is given, and the reference is 4
    assert cost["lqr (linear)"] < 0.2 * cost["zero"] and cost["pid"] < 0.2 * cost["zero"]
    assert len(list(Path("results/infusion").glob("report.html"))) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("infusion.xml", "infusio.xml", r"^plants\.0: model: there is no file infusio\.xml \(looked for in /"),
        ('measured = ["[Drug]"]', 'measured = ["[Drg]"]', r"^plants\.0: measured: the model has no symbol '\[Drg\]'"),
        ("rate = [0.0, 30.0]", "rate = [30.0]", r"^plants\.0: actions\.rate: give least and largest value"),
        ("period = 0.5", "period = 0.5\nhorizn = 3", r"^plants\.0: .*horizn"),
        ("value = 4.0", 'info = "plan"', r"^plants\.0: references\.\[Drug\]: an SBML model knows constant references only"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_said_with_its_key(folder: Path, old: str, new: str, message: str) -> None:
    Path("infusion.toml").write_text(INFUSION.replace(old, new))
    with pytest.raises(SpecError, match=message):
        check_problems(read_spec("infusion.toml"))


def test_a_file_can_be_checked(folder: Path) -> None:
    settings = {
        "model": "infusion.xml", "measured": ["[Drug]"], "actions": {"rate": [0.0, 30.0]}, "period": 0.5, "horizon": 6,
        "parameters": {"clearance": [0.6, 1.6]},
    }  # fmt: skip
    assert len(check("steersman.envs.sbml:SbmlSimulator", settings=settings)) == 4


def test_a_transfer_function_is_controlled_and_a_plant_is_a_system(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(CODE, "exchange-formats.md", "exec"), {"__name__": "page"})
    cost, poles = capsys.readouterr().out.splitlines()[:2]
    assert 0 < float(cost.split()[-1]) < 20
    assert "0.923" in poles and "1." in poles  # exp(-0.4 0.2), and the integrator


def test_the_file_of_a_linear_system_can_be_compared(folder: Path) -> None:
    Path("motor.toml").write_text(MOTOR)
    spec = read_spec("motor.toml")
    check_problems(spec)
    assert [p.label for p in plan(spec)] == ["zero", "lqr (linearized)"]
