"""Policies as ONNX files: onnxruntime acts as the controller does that the file was written of."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from steersman.controllers.neural.policy import build_policy
from steersman.controllers.policy_search import PolicySearch
from steersman.controllers.registry import controller_spec
from steersman.envs.actions import ActionSet
from steersman.envs.objective import Objective, Quadratic
from steersman.envs.plant import ControlProblem
from steersman.experiments.exported import load_controller, to_onnx
from steersman.experiments.exported.controller import Part, SavedController, save_controller
from steersman.experiments.exported.onnx_file import require_equal, write_onnx
from steersman.optimizers.policies.registry import POLICIES

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

INF = math.inf
MIXED = ActionSet(
    (-1.0, 0.0, -INF, -INF, 0.0, 0.0, -3.0),
    (2.0, INF, 1.0, INF, 1.0, 1.0, 4.0),
    (False,) * 6 + (True,),
    one_hot=((4, 5),),
)
"""Every kind of bound, a one-hot group and an integer action."""
LEVELS = ActionSet((-2.0, 0.0), (2.0, 5.0), (True, True))
SIZES = {"experts": (4,), "gru": (5,), "table": (4,), "tree": (8,), "rules": (4,)}
QUICK = [("mlp", (), LEVELS), ("gru", (5,), MIXED)]
SLOW = [
    ("mlp", (6,), MIXED),
    *((kind.name, SIZES.get(kind.name, (6,)), MIXED) for kind in POLICIES if kind.name not in ("mlp", "gru", "rules")),
]


@pytest.fixture(autouse=True)
def tracing() -> Iterator[None]:
    """Shape checks of tests would fix the number of rows while it is traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def made(policy: str, hidden: tuple[int, ...], actions: ActionSet) -> tuple[PolicySearch, dict[str, Any]]:
    """A policy-search controller with random weights and a scaling of its own."""
    objective = Objective((Quadratic(name="z", on="z", weights=(1.0, 1.0, 1.0)),))
    names = ("a", "b", "c")
    problem = ControlProblem(actions, objective, 0.5, 20, names, names)
    settings = {"policy": policy, "hidden": hidden, "search": "random", "plant_steps": 10**7, "scenarios": 1}
    law = PolicySearch(**settings).bind(problem)  # type: ignore[arg-type]
    weights = build_policy(policy, 3, actions.m, hidden, 3).state_dict()
    scaling = {"mean": torch.tensor([1.0, -2.0, 300.0]).double(), "std": torch.tensor([0.5, 2.0, 40.0]).double()}
    law.load_state_dict({f"policy.{name}": 2 * t for name, t in weights.items()} | scaling)
    return law, settings


def kept(folder: Path, policy: str, hidden: tuple[int, ...], actions: ActionSet) -> Path:
    law, settings = made(policy, hidden, actions)
    settings = json.loads(json.dumps(settings))
    save_controller(SavedController(Part("policy-search", settings), law), folder)
    return to_onnx(folder)


@pytest.mark.parametrize(
    ("policy", "hidden", "actions"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_it_acts_as_the_controller(policy: str, hidden: tuple[int, ...], actions: ActionSet, tmp_path: Path) -> None:
    file = kept(tmp_path, policy, hidden, actions)
    assert file == tmp_path / "controller.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    law = load_controller(tmp_path)
    rng = np.random.default_rng(0)
    told = json.loads(session.get_modelmeta().custom_metadata_map["steersman"])
    assert told["measured"] == ["a", "b", "c"] and told["actions"] == list(actions.names) and told["period"] == 0.5
    memory, seen = np.zeros((1, told["memory"])), []
    for step in range(40):
        y = np.array([1.0, -2.0, 300.0]) + 3 * np.array([0.5, 2.0, 40.0]) * rng.normal(size=3)
        y[rng.integers(3)] = np.nan if step % 7 == 3 else y[rng.integers(3)]
        given = {"observation": y[None]} | ({"memory": memory} if told["memory"] else {})
        found = session.run(None, given)
        want = law(y)
        np.testing.assert_allclose(found[0][0], want, rtol=1e-6, atol=1e-6)
        assert bool(actions.admissible(torch.from_numpy(found[0])))
        memory = found[1] if told["memory"] else memory
        seen.append(want)
    spread = np.ptp(np.array(seen), axis=0)
    assert (spread > 0).sum() >= 2  # it was no constant


def test_many_rows_at_once_those_that_are_missing_and_files_of_another(tmp_path: Path) -> None:
    file = kept(tmp_path, "mlp", (6,), MIXED)
    law, _ = made("mlp", (6,), MIXED)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    y = (
        torch.tensor([1.0, -2.0, 300.0])
        + 100 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).double()
    )
    y[7, 1], y[9, 2] = torch.nan, torch.inf
    (u,) = session.run(None, {"observation": y.numpy()})
    neutral = MIXED.neutral(1, y)[0].numpy()
    assert u.shape == (1000, 7) and u[7].tolist() == u[9].tolist() == neutral.tolist()
    with torch.no_grad():
        want = MIXED.project(law.respond(y.nan_to_num(0, 0, 0), torch.zeros(1000, 0).double())[0])
    good = np.isfinite(y.numpy()).all(axis=1)
    np.testing.assert_allclose(u[good], want.numpy()[good], rtol=1e-6, atol=1e-6)
    assert len(np.unique(u[:, 6])) > 3 and set(np.unique(u[:, 4:6])) == {0.0, 1.0}
    require_equal(file, law)
    state = law.state_dict()
    law.load_state_dict(state | {"mean": state["mean"] + 1e-3})
    with pytest.raises(ValueError, match=r"the ONNX form of policy 'mlp' differs from it by .* in action"):
        require_equal(file, law)
    (tmp_path / "half.onnx").write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="ONNX form cannot be run"):
        require_equal(tmp_path / "half.onnx", law)


def test_what_has_no_form_is_refused_by_name(tmp_path: Path) -> None:
    rules, _ = made("rules", (4,), LEVELS)
    pid = controller_spec("pid").make(error=((1.0, 0.0, 0.0),) * 2, kp=1.0).bind(rules.problem)
    with pytest.raises(ValueError, match="pid has no ONNX form; policies of neural"):
        write_onnx(pid, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"the 'rules' policy of policy-search has no ONNX form: .*prod.* or 'gru'"):
        write_onnx(rules, tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError, match=r"controller\.json"):
        to_onnx(tmp_path)
    assert not list(tmp_path.iterdir())
