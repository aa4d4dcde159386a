"""What makes a result stale, and what does not."""

import importlib
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from steersman.experiments.comparison.compare import compare
from steersman.experiments.comparison.jobs import job_of, work
from steersman.experiments.comparison.store import Store
from steersman.experiments.spec import closure as module
from steersman.experiments.spec.closure import closure, code_digest, files_in, modules_in, refresh
from steersman.experiments.spec.comparison import parse_spec, read_spec
from steersman.experiments.spec.plan import RUNNER, modules_of, plan
from steersman.experiments.spec.settings import SpecError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    write(
        tmp_path / "own_root.py",
        """
        '''Docstring.'''
        import numpy
        from own_pack import deep
        def f():
            '''Docstring.'''
            import own_lazy
            return deep.x + own_lazy.y
    """,
    )
    write(tmp_path / "own_lazy.py", "y = 1\n")
    write(tmp_path / "own_pack/__init__.py", "")
    write(tmp_path / "own_pack/deep.py", "from . import sibling\nx = sibling.z\n")
    write(tmp_path / "own_pack/sibling.py", "z = 2\n")
    write(tmp_path / "own_stranger.py", "w = 3\n")
    module._source.cache_clear()
    for name in [name for name in sys.modules if name.startswith("own_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


CHANGES = {
    "the module": ("own_root.py", "import own_lazy\nfrom own_pack import deep\na = 1\n", True),
    "a lazy import": ("own_lazy.py", "y = 2\n", True),
    "a relative import": ("own_pack/sibling.py", "z = 3\n", True),
    "a package": ("own_pack/__init__.py", "q = 1\n", True),
    "a comment": ("own_lazy.py", "# what y is\ny = 1\n", False),
    "a docstring": ("own_lazy.py", "'''What y is.'''\n\ny = 1\n'''An attribute's docstring.'''\n", False),
    "a stranger": ("own_stranger.py", "w = 4\n", False),
}


@pytest.mark.parametrize("case", CHANGES, ids=lambda name: name.replace(" ", "-"))
def test_code_that_is_imported_counts_and_words_do_not(case: str, own: Path) -> None:
    name, text, counts = CHANGES[case]
    before = code_digest(["own_root"])
    assert (own / name).read_text() != text
    write(own / name, text)
    assert (code_digest(["own_root"]) != before) == counts


def test_the_closure_holds_ours_and_the_users_modules_only(own: Path) -> None:
    assert set(closure(["own_root"])) == {"own_root", "own_lazy", "own_pack", "own_pack.deep", "own_pack.sibling"}
    found = closure([RUNNER])
    assert {"steersman.envs.simulator", "steersman.envs.failure", "steersman.controllers.base"} <= set(found)
    assert not any(name.startswith(("torch", "numpy", "json")) for name in found)
    assert not {"steersman.experiments.report.page", "steersman.experiments.stats", "steersman.envs.pde.burgers"} & set(
        found
    )


def test_catalogues_add_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path / "own_list.py", "PLANTS: tuple[PlantSpec, ...] = (PlantSpec('a'),)\n")
    mine = code_digest(["own_list"])
    monkeypatch.setattr(module, "OURS", "own_list")
    before = code_digest(["own_list"])
    write(path, "PLANTS: tuple[PlantSpec, ...] = (PlantSpec('a'), PlantSpec('b'))\n")
    assert code_digest(["own_list"]) == before
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    assert code_digest(["own_list"]) != mine, "a list in a user's module may be anything"


def test_files_and_modules_that_settings_name(tmp_path: Path) -> None:
    case = write(tmp_path / "case.m", "mpc = 1;")
    settings = {"a": [{"path": str(case)}, "x" * 9999, "\0", 3], "b": "my_twin:virus", "c": "no module"}
    before = files_in(settings)
    assert list(before) == [str(case)] and modules_in(settings) == ["my_twin"]
    write(case, "mpc = 2;")
    assert files_in(settings) != before


def test_keys_follow_the_code_of_plant_model_controller_and_variant() -> None:
    def keys(controller: dict[str, object], plant: str = "steersman/WolfSheep-v1") -> list[str]:
        spec = {"name": "t", "plants": [{"id": plant, "controllers": [{"use": "zero"}, controller]}]}
        return [p.run.made.code for p in plan(parse_spec(spec))]

    zero, pid = keys({"use": "pid"})
    assert zero != pid != keys({"use": "lqr", "model": "linearized"})[1]
    assert keys({"use": "pid"}, "steersman/WolfSheepSteady-v1")[0] != zero, "a variant's settings are part of it"


def test_a_module_of_the_users_is_imported_anew_after_an_edit(own: Path) -> None:
    import own_lazy

    refresh(["own_root"])
    write(own / "own_lazy.py", "y = 5\n")
    refresh(["own_root"])
    assert "own_lazy" not in sys.modules
    import own_lazy as again

    assert (own_lazy.y, again.y) == (1, 5)


def test_steersman_itself_cannot_change_under_a_running_process(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module(RUNNER)
    monkeypatch.setitem(module._SEEN, RUNNER, "another digest")
    with pytest.raises(
        SpecError, match=r"experiments\.comparison\.runner was edited while this process runs; start Python again"
    ):
        refresh([RUNNER])


# ------------------------------------------------------------------ whole comparisons, with edits in between

TANK = """
    import torch
    from steersman.envs.actions import ActionSet
    from steersman.envs.objective import Objective, Quadratic
    from steersman.envs.plant import Plant
    {head}

    class Tank(Plant):
        def __init__(self, note=""):
            self.dt, self.hold, self.horizon, self.gradient = 1.0, 1, 3, "exact"
            self.actions = ActionSet((-1.0,), (1.0,))
            self.objective = Objective((Quadratic(name="level", on="z", weights=({weight},)),))
            self.measured = self.performed = ("level",)
        def params(self, key): return {{}}
        def initial(self, key, p): return torch.ones(len(key), 1, dtype=self.dtype)
        def measure(self, k, x, p): return x
        def step(self, k, x, u, w, p): return x + 0.1 * u
"""


def tank(path: Path, weight: object = 1.0, head: str = "") -> None:
    write(path, dedent(TANK).format(weight=weight, head=head))


def file_of(folder: Path, id: str, more: str = "") -> Path:
    lines = [
        "episodes = 2",
        "recorded = 1",
        "[[plants]]",
        f'id = "{id}"',
        more,
        "[[plants.controllers]]",
        'use = "zero"',
    ]
    folder.mkdir(exist_ok=True)
    (folder / "c.toml").write_text("\n".join(lines))
    return folder / "c.toml"


def cost(file: Path, out: Path) -> float:
    """Cost of doing nothing for three steps at level 1: three times the weight."""
    found = compare(read_spec(str(file)), out)
    assert not found.failures
    return float(found.results[0].cost[0])


@pytest.fixture(autouse=True)
def _path_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("where", ["own_flat.py", "own_dir/tank.py", "own_dir/deeper/tank.py", "own_pkg/__init__.py"])
def test_an_edit_between_two_runs_of_one_process_counts_wherever_the_plant_lies(where: str, tmp_path: Path) -> None:
    name = where.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    file = file_of(tmp_path, f"{name}:Tank")
    for weight in (1.0, 2.0, 3.0):  # of equal length, and perhaps within one second: bytecode would seem fresh
        tank(tmp_path / where, weight)
        assert cost(file, tmp_path / "out") == 3 * weight


def test_what_a_list_in_a_users_module_says_counts(tmp_path: Path) -> None:
    file = file_of(tmp_path, "own_levels:Tank")
    for weight in (1.0, 7.0):
        head = f"class TankSpec(float): pass\n    LEVELS: tuple[TankSpec, ...] = (TankSpec({weight}),)"
        (tmp_path / "own_levels.py").write_text(dedent(TANK.format(weight="LEVELS[0]", head=head)))
        assert cost(file, tmp_path / "out") == 3 * weight


def test_modules_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    weights = {"a": 1.0, "b": 50.0}
    files = {name: file_of(tmp_path / name, "own_twin:Tank") for name in weights}
    for name, weight in weights.items():
        tank(tmp_path / name / "own_twin.py", weight)
    specs = {name: read_spec(str(file)) for name, file in files.items()}  # all are read before any runs
    for i, name in enumerate("aba"):
        (result,) = compare(specs[name], tmp_path / f"out{i}").results
        assert result.cost[0] == 3 * weights[name]


def test_a_module_that_was_moved_or_removed_is_not_the_one_that_was_imported(tmp_path: Path) -> None:
    file = file_of(tmp_path, "own_moved:Tank")
    tank(tmp_path / "own_moved.py")
    assert cost(file, tmp_path / "out") == 3
    (tmp_path / "own_moved.py").unlink()
    tank(tmp_path / "own_moved/__init__.py", 5.0)
    assert cost(file, tmp_path / "out") == 15
    (tmp_path / "own_moved/__init__.py").unlink()
    (tmp_path / "own_moved").rename(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match="own_moved"):
        compare(read_spec(str(file)), tmp_path / "out")


def test_a_link_that_leads_to_another_file_counts(tmp_path: Path) -> None:
    tank(tmp_path / "one.txt", 1.0)
    tank(tmp_path / "two.txt", 2.0)
    os.utime(tmp_path / "two.txt", ns=(0, (tmp_path / "one.txt").stat().st_mtime_ns))
    (tmp_path / "own_link.py").symlink_to(tmp_path / "one.txt")
    file = file_of(tmp_path, "own_link:Tank")
    assert cost(file, tmp_path / "out") == 3
    (tmp_path / "own_link.py").unlink()
    (tmp_path / "own_link.py").symlink_to(tmp_path / "two.txt")
    assert cost(file, tmp_path / "out") == 6


def test_what_is_edited_after_planning_fails_rather_than_being_kept_under_the_old_key(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    file = file_of(tmp_path, "own_late:Tank", f'settings = {{ note = "{note}" }}')
    for edited in (tmp_path / "own_late.py", note):
        tank(tmp_path / "own_late.py")
        note.write_text("before")
        spec = read_spec(str(file))
        refresh(modules_of(spec))
        bank = plan(spec)[0].run.prepared
        store = Store(tmp_path / edited.stem)
        store.add([job_of(bank)])
        tank(tmp_path / "own_late.py", 9.0) if edited.suffix == ".py" else note.write_text("after")
        work(store.folder, bank.key)
        assert "edited while the comparison ran; run it again" in store.get(bank.key).error


def test_every_module_that_a_comparison_names_is_watched() -> None:
    pid = {"use": "pid", "settings": {"kp": 1.0}}
    lqr = {"use": "lqr", "model": "fit"}
    models = [{"use": "linear", "label": "fit"}]
    spec = {"name": "t", "plants": [{"id": "own_watched:Tank", "models": models, "controllers": [pid, lqr]}]}
    wanted = {
        "own_watched",
        "steersman.controllers.classical.pid",
        "steersman.controllers.classical.lqr",
        "steersman.dynamics.linear.models",
    }
    assert wanted <= set(modules_of(parse_spec(spec)))


@pytest.mark.parametrize(
    "text", ["def (", "x = undefined", "1 / 0", "open('/no/such/file')", "import sys; sys.exit(3)"]
)
def test_a_module_that_cannot_be_imported_is_named(text: str, tmp_path: Path) -> None:
    write(tmp_path / "own_broken.py", text)
    with pytest.raises(SpecError, match=r"plants\.0: .*own_broken:Tank.* cannot be \w+ \(\w+(Error|Exit): "):
        compare(read_spec(str(file_of(tmp_path, "own_broken:Tank"))), tmp_path / "out")


def test_code_that_was_typed_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(SpecError, match="put it into a module of its own"):
        code_digest(["__main__"])
