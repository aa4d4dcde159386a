"""Comparison files: what is accepted, and one clear error for everything else."""

from datetime import date, time
from pathlib import Path
from typing import Any

import pytest

from steersman.experiments.spec.comparison import ComparisonSpec, parse_spec, presets, read_spec
from steersman.experiments.spec.plan import plan
from steersman.experiments.spec.settings import SpecError

GOOD: dict[str, Any] = {
    "name": "t",
    "episodes": 4,
    "plants": [
        {
            "id": "steersman/Pendulum-v1",
            "models": [{"use": "neural", "label": "small", "settings": {"hidden": [8]}}],
            "controllers": [{"use": "zero"}, {"use": "mppi", "model": "small", "settings": {"horizon": 4}}],
        }
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with the entry at the dotted path set to a value."""
    import copy

    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    node: Any = data
    for part in parents:
        node = node[int(part)] if part.isdigit() else node[part]
    node[int(last) if last.isdigit() else last] = value
    return data


BAD = {
    "unknown key": (changed("plants.0.colour", 1), r"plants\.0\.colour: unknown key"),
    "unknown controller": (changed("plants.0.controllers.1.use", "x"), "unknown controller 'x'; known: zero"),
    "a slip in the baseline's name": (
        changed("plants.0.controllers.0.use", "zeroo"),
        r"^plants\.0\.controllers\.0\.use: unknown controller 'zeroo' \(did you mean 'zero'\?\); known: zero, constant",
    ),
    "a slip in the name of the baseline": (
        changed("baseline", "zer"),
        r"^baseline: unknown controller 'zer' \(did you mean 'zero'\?\)",
    ),
    "a slip in a model's name": (
        changed("plants.0.controllers.1.model", "smal"),
        r"^plants\.0\.controllers\.1\.model: no model 'smal' \(did you mean 'small'\?\); known: small, truth",
    ),
    "a slip in a model that nobody uses": (
        changed("plants.0.models", [{"use": "neural", "label": "small"}, {"use": "nueral"}]),
        r"^plants\.0\.models\.1\.use: unknown model 'nueral' \(did you mean 'neural'\?\)",
    ),
    "a setting beside its table": (
        changed("plants.0.controllers.1.horizn", 3),
        r"^plants\.0\.controllers\.1\.horizn: unknown key; known: use, label, model, settings, episodes, preview$",
    ),
    "a slip in a key": (
        changed("plants.0.contollers", []),
        r"^plants\.0\.contollers: unknown key \(did you mean 'controllers'\?\); known: id, settings, workers,",
    ),
    "a slip at the top": (changed("episode", 3), r"^episode: unknown key \(did you mean 'episodes'\?\); known: name, "),
    "a slip deep inside": (
        changed("plants.0.references", {"level": {"vale": 1.0}}),
        r"^plants\.0\.references\.level\.vale: unknown key \(did you mean 'value'\?\); known: value, observation, info",
    ),
    "unknown model": (changed("plants.0.controllers.1.model", "x"), "no model 'x'; known: small, truth"),
    "unknown model class": (changed("plants.0.models.0.use", "x"), "unknown model 'x'"),
    "unknown setting": (
        changed("plants.0.controllers.1.settings", {"horizn": 4}),
        r"controllers\.1\.settings\.horizn: unknown key \(did you mean 'horizon'\?\); known: .*horizon",
    ),
    "unknown model setting": (
        changed("plants.0.models.0.settings", {"hiden": [8]}),
        r"models\.0\.settings\.hiden: unknown key \(did you mean 'hidden'\?\); known: context, hidden, rollout, ",
    ),
    "wrong type": (changed("plants.0.controllers.1.settings", {"horizon": "far"}), "horizon: .*integer.*'far'"),
    "a boolean number": (changed("episodes", True), "^episodes: must be a number, got a boolean$"),
    "a boolean deep inside": (
        changed("plants.0.objective", [{"kind": "l1", "on": "u", "weights": {"u0": True}}]),
        r"^plants\.0\.objective\.0\.weights\.u0: must be a number, got a boolean$",
    ),
    "a boolean setting": (
        changed("plants.0.controllers.1.settings", {"horizon": True}),
        r"^plants\.0\.controllers\.1\.settings\.horizon: must be a number, got a boolean$",
    ),
    "a boolean setting of a model": (
        changed("plants.0.models.0.settings", {"hidden": [True]}),
        r"^plants\.0\.models\.0\.settings\.hidden\.0: must be a number, got a boolean$",
    ),
    "no episodes": (changed("episodes", 0), "episodes must be at least 1 and at most .*, got 0"),
    "a name of our own words": (changed("name", "Ä/B"), r"^name becomes a folder .*, got 'Ä/B'$"),
    "a date": (
        changed("plants.0.settings", {"from": date(2026, 1, 1)}),
        r"plants\.0\.settings\.from: dates .*2026-01-01",
    ),
    "a time": (changed("plants.0.settings", {"at": [time(8, 0)]}), r"settings\.at\.0: dates and times are no settings"),
    "negative subset": (changed("plants.0.controllers.0.episodes", -3), r"episodes: must be at least 1, got -3"),
    "no baseline": (changed("plants.0.controllers.0.use", "constant"), "baseline 'zero' is not among them"),
    "equal labels": (changed("plants.0.controllers.1", {"use": "zero"}), "labels must differ"),
    "no model given": (changed("plants.0.controllers.1", {"use": "mppi"}), "plans with a model; name one"),
    "no plants": (changed("plants", []), "at least one"),
    "missing key": (changed("plants.0", {"id": "steersman/Pendulum-v1"}), r"plants\.0\.controllers: .*required"),
    "plant twice": (changed("plants", [GOOD["plants"][0]] * 2), "names must differ.*set label"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda name: name.replace(" ", "-"))
def test_bad_files_are_refused_with_the_key_and_the_remedy(case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(SpecError, match=message):
        plan(parse_spec(data))


def test_expand_repeats_only_what_learns() -> None:
    runs = [p.run for p in plan(parse_spec(GOOD | {"seeds": 3}))]
    assert [run.seed for run in runs] == [0, 0, 1, 2]
    assert len({run.key for run in runs}) == 4 and len({run.fit.key for run in runs if run.fit}) == 3


def test_a_plant_may_have_seeds_of_its_own() -> None:
    runs = [p.run for p in plan(parse_spec(changed("plants.0.seeds", 3)))]
    assert [run.seed for run in runs] == [0, 0, 1, 2]
    with pytest.raises(SpecError, match=r"plants.0.*seeds must be at least 1"):
        parse_spec(changed("plants.0.seeds", 0))


def test_a_key_depends_on_content_not_on_labels() -> None:
    def keys(data: dict[str, Any]) -> list[str]:
        return [p.run.key for p in plan(parse_spec(data))]

    assert keys(GOOD) == keys(changed("plants.0.controllers.1.label", "another name"))
    assert keys(GOOD) != keys(changed("plants.0.models.0.settings", {"hidden": [9]}))
    assert keys(GOOD) != keys(GOOD | {"bank": 1})


def test_reading_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown preset 'nothing'; known: .*tour"):
        read_spec("nothing")
    with pytest.raises(SpecError, match="no such file"):
        read_spec(str(tmp_path / "nothing.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("plants = [")
    with pytest.raises(SpecError, match="not valid TOML"):
        read_spec(str(broken))


@pytest.mark.parametrize("name", presets())
def test_presets_can_run(name: str) -> None:
    from steersman.experiments.comparison.compare import check_problems

    spec = read_spec(name)
    assert isinstance(spec, ComparisonSpec) and spec.summary
    assert plan(spec)
    check_problems(spec)
