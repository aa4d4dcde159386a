"""What makes a result stale, and what does not."""

import importlib
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from steersman.experiments import closure as module
from steersman.experiments.closure import closure, code_digest, files_in, modules_in, refresh
from steersman.experiments.plan import RUNNER, plan
from steersman.experiments.settings import SpecError
from steersman.experiments.spec import parse_spec


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
    assert not {"steersman.experiments.report", "steersman.experiments.stats", "steersman.envs.pde.burgers"} & set(
        found
    )


def test_catalogues_add_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path / "own_list.py", "PLANTS: tuple[PlantSpec, ...] = (PlantSpec('a'),)\n")
    before = code_digest(["own_list"])
    write(path, "PLANTS: tuple[PlantSpec, ...] = (PlantSpec('a'), PlantSpec('b'))\n")
    assert code_digest(["own_list"]) == before


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
    with pytest.raises(SpecError, match=r"experiments.runner was edited while this process runs; start Python again"):
        refresh([RUNNER])
