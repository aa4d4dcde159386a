"""A script of a user's own: plant and controller in ``__main__``, two workers, results as columns."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import pyarrow
import torch
from steersman.controllers.base import Controller
from steersman.envs import noise
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import Plant
from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.executor import Processes
from steersman.experiments.spec.comparison import parse_spec

class Cart(Plant):
    def __init__(self):
        self.dt, self.horizon, self.measured, self.performed = 0.1, 50, ("x", "v"), ("x", "v")
        self.actions = ActionSet((-1.0,), (1.0,), names=("force",))
        self.objective = Objective((Quadratic(name="place", on="z", weights=(1.0, 0.1)),))
    def initial(self, key, p):
        return 2 * noise.uniform(key, 2, dtype=self.dtype) - 1
    def step(self, k, x, u, w, p):
        return torch.stack([x[:, 0] + 0.1 * x[:, 1], x[:, 1] + 0.1 * u[:, 0]], dim=1)
    def measure(self, k, x, p):
        return x

class Damper(Controller):
    def decide(self, m, budget_s):
        return self.optimal(-m.y[:, :1] - m.y[:, 1:])

if __name__ == "__main__":
    rivals = [{"use": "zero"}, {"use": "__main__:Damper"}]
    spec = parse_spec({"name": "cart", "episodes": 6, "plants": [{"id": "__main__:Cart", "controllers": rivals}]})
    table = pyarrow.table(compare(spec, "results", executor=Processes(2)).columns())
    print(table.select(["controller", "scenario", "cost"]).to_pylist())
"""


def test_a_script_compares_its_own_plant_and_controller(tmp_path: Path) -> None:
    (tmp_path / "cart.py").write_text(SCRIPT)
    run = [sys.executable, "cart.py"]
    first = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert not first.returncode, first.stderr
    rows = eval(first.stdout)
    cost = {name: [row["cost"] for row in rows if row["controller"].endswith(name)] for name in ("zero", "Damper")}
    assert len(rows) == 12 and len(cost["Damper"]) == 6
    assert all(damped < idle for damped, idle in zip(cost["Damper"], cost["zero"], strict=True))
    jobs = sorted((tmp_path / "results" / "store").glob("*.npz"))
    before = [path.stat().st_mtime_ns for path in jobs]
    again = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert again.stdout == first.stdout and [path.stat().st_mtime_ns for path in jobs] == before
