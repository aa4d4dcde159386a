"""The page on network files: its example is a plant, and it names every model with its parameters."""

import re
from pathlib import Path

import pytest
import torch

from steersman.envs import noise
from steersman.envs.checks import check_plant
from steersman.envs.grid.files import matpower
from steersman.envs.grid.files.psse_dyr import MODELS, parameters, read_dyr
from steersman.envs.grid.machines.units import units
from steersman.envs.grid.tasks.line_faults import GridFile
from steersman.envs.simulator import PlantSimulator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "envs" / "grid" / "network-files.md").read_text()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for language, name in (("matlab", "three.m"), ("text", "three.dyr"), ("toml", "three.toml")):
        (tmp_path / name).write_text(re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[0])
    return tmp_path


def test_the_example_is_a_plant(files: Path) -> None:
    """Every line can be lost, no fault loses synchronism, and without one the machines rest."""
    plant = GridFile(str(files / "three.m"), str(files / "three.dyr"))
    assert plant.lines == [0, 1, 2] and plant.actions.names == ("Vref 1",) and not plant.system.case.notes
    check_plant(plant, steps=2)
    simulator = PlantSimulator(plant, 8)
    simulator.reset(simulator.scenarios(noise.keys(0, 8)))
    cost = torch.zeros(8, dtype=torch.float64)
    for _ in range(plant.horizon):
        t = simulator.step(torch.zeros(8, 1, dtype=torch.float64))
        cost += t.cost
    assert bool((t.status == 0).all()) and float(cost.min()) > 0.5
    still = plant.scenario(torch.ones(1, dtype=torch.float64), [])
    rest = plant.initial(noise.keys(0, 1), still)
    assert float(plant.perform(torch.zeros(1, dtype=torch.int64), rest, still).abs().max()) < 1e-9


def test_the_example_can_be_compared(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steersman.experiments.comparison.compare import check_problems
    from steersman.experiments.spec.comparison import read_spec
    from steersman.experiments.spec.plan import plan
    from steersman.experiments.spec.settings import SpecError

    monkeypatch.chdir(files)
    spec = read_spec("three.toml")
    check_problems(spec)
    assert [p.label for p in plan(spec)] == ["zero", "pid"]
    (files / "three.m").rename(files / "four.m")
    with pytest.raises(SpecError, match=r"^plants\.0: network: there is no file three\.m \(looked for in /"):
        check_problems(spec)


def test_every_model_stands_with_its_parameters_in_the_order_of_the_record() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    wanted = [
        (kind.part, name, " ".join(f"`{parameter}`" for parameter in parameters(kind)))
        for name, kind in MODELS.items()
        if kind.part
    ]
    assert rows == wanted and len(wanted) == 6
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "(envs/grid/network-files.md)" in readme and all(name in readme for _, name, _ in wanted)


def test_what_is_not_simulated_is_said_with_what_is(files: Path) -> None:
    path, text = files / "three.dyr", (files / "three.dyr").read_text()
    models = "machine GENCLS or GENROU; exciter EXDC2; governor TGOV1; stabiliser IEEEST or STAB1"
    case = matpower.read(files / "three.m")
    path.write_text(text + "2 'SEXS' 1 1 1 100 0.1 -5 5 /\n")
    with pytest.raises(
        ValueError, match=f"line 5: SEXS at bus 2 is read but not simulated; .* one of these: {models}$"
    ):
        units(case, read_dyr(path))
    path.write_text(text + "2 'GENSAL' 1 5 0.05 0.06 5 0 1 0.6 0.3 0.2 0.1 0 0 /\n")
    with pytest.raises(ValueError, match=f"line 5: model 'GENSAL' at bus 2 is not supported; supported: {models}$"):
        read_dyr(path)
    path.write_text(re.sub(r"2 'GENROU'.*/", "2 'GENCLS' 1 6.5 0.0 /", text))
    with pytest.raises(
        ValueError, match=r"line 4: GENCLS at bus 2 needs a source reactance.* no MATPOWER file; use a raw"
    ):
        units(case, read_dyr(path))
    path.write_text("\n".join(line for line in text.splitlines() if "EXDC2" not in line) + "\n")
    with pytest.raises(ValueError, match=r"no machine has an exciter, .*; add an EXDC2 record"):
        GridFile(str(files / "three.m"), str(path))
