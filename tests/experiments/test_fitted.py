"""Models of a log: fitted, kept, scored, and run as the plant of a comparison."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steersman.dynamics.recorded.log import Log
from steersman.dynamics.windowed.windows import cut, starts, window_at
from steersman.envs import noise
from steersman.envs.objective import Limit, Linear, Objective, Quadratic
from steersman.envs.plant import Status
from steersman.envs.registry import make_simulator
from steersman.envs.repeat import repeats
from steersman.envs.scenarios import Scenarios
from steersman.envs.simulator import PlantSimulator
from steersman.experiments.cli import main
from steersman.experiments.exported import load_model
from steersman.experiments.fitted import FittedSimulator
from steersman.experiments.fitted.fit import divided, fit
from steersman.experiments.fitted.page import best, table
from steersman.experiments.fitted.spec import parse_fitting, read_fitting
from steersman.experiments.spec.settings import SpecError

PAGE = (Path(__file__).parents[2] / "experiments" / "recorded-logs.md").read_text()
FITTING, CONTROL = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
TRACK = Objective((Quadratic(name="warm", on="e", weights=(1.0, 0.0)), Linear(name="power", on="u", weights=(0.1,))))


def heater(path: Path, *, noise_std: float = 0.02, episodes: int = 6, steps: int = 60) -> Path:
    """A room that leaks to the outside and has a heater; the outside stays as it is."""
    rng = np.random.default_rng(0)
    lines = ["run,time,temperature,outside,heater"]
    for run in range(episodes):
        inside, outside, u = 18 + rng.normal(), 5 + 5 * rng.random(), 0.0
        for k in range(steps):
            u = float(rng.random()) if k % 5 == 0 else u
            lines.append(f"{run},{60 * k},{inside!r},{outside!r},{u!r}")
            inside += 0.03 * (outside - inside) + 0.6 * u + noise_std * rng.normal()
    path.write_text("\n".join(lines))
    return path


def fitting(tmp_path: Path, *models: dict[str, object], **score: object) -> Path:
    """A fitting file beside a log of the heater."""
    if not (tmp_path / "heater.csv").is_file():
        heater(tmp_path / "heater.csv")
    head = FITTING.split("[score]")[0]
    text = head + "[score]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in score.items())
    for model in models or ({"use": "linear"},):
        text += "[[models]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in model.items())
    (tmp_path / "fit.toml").write_text(text)
    return tmp_path / "fit.toml"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a linear model of the heater."""
    folder = tmp_path_factory.mktemp("heater")
    fit(read_fitting(fitting(folder)), folder / "out")
    return str(folder / "out" / "linear" / "model.json")


def simulator(model: str, n: int = 4, **more: object) -> FittedSimulator:
    return FittedSimulator(n, model, **({"objective": TRACK} | more))  # type: ignore[arg-type]


# ------------------------------------------------------------------ fitting


def test_an_exact_law_is_found_and_told(tmp_path: Path) -> None:
    heater(tmp_path / "heater.csv", noise_std=0.0)
    found = fit(read_fitting(fitting(tmp_path)), tmp_path / "out")
    (linear,) = found.models
    assert not linear.failure and linear.relative(0) < 1e-5 and found.held_back.u.shape[0] == 2
    saved = load_model(tmp_path / "out" / "linear")
    at = starts(saved.data.valid, saved.model.context, 1)[:5]
    y, _ = saved.model.output(
        saved.model.step(
            saved.model.init(window_at(saved.data, at, saved.model.context)), cut(saved.data.u, at, 0, 1)[:, 0]
        )
    )
    now, u = cut(saved.data.y, at, 0, 1)[:, 0], cut(saved.data.u, at, 0, 1)[:, 0, 0]
    torch.testing.assert_close(y[:, 0], now[:, 0] + 0.03 * (now[:, 1] - now[:, 0]) + 0.6 * u, rtol=0, atol=1e-6)
    assert saved.about["steps"] == 4 * 59 and saved.problem.actions.names == ("heater",)


def test_models_are_judged_by_what_they_have_not_seen(tmp_path: Path) -> None:
    small = {"context": 1, "hidden": [4], "members": 1, "steps": 1, "rollout": 1, "batch": 8}
    found = fit(
        read_fitting(fitting(tmp_path, {"use": "neural", "settings": small}, {"use": "linear"}, horizon=10)),
        tmp_path / "out",
    )
    winner = best(found)
    assert winner is not None
    assert winner.relative(0) == min(model.relative(0) for model in found.models)
    assert table(found).row_count == 2 and found.models[0].score is not None
    assert found.models[0].score.y.shape == (10, 2)


def test_what_is_fitted_is_not_fitted_again(tmp_path: Path) -> None:
    file = fitting(tmp_path)
    weights = tmp_path / "out" / "linear" / "model.safetensors"
    first = fit(read_fitting(file), tmp_path / "out")
    before = weights.stat().st_mtime_ns
    again = fit(read_fitting(file), tmp_path / "out")
    assert weights.stat().st_mtime_ns == before and again.models[0].relative(0) == first.models[0].relative(0)
    weights.write_bytes(b"broken")
    assert not fit(read_fitting(file), tmp_path / "out").models[0].failure and weights.stat().st_size > 100
    heater(tmp_path / "heater.csv", steps=50)
    before = weights.stat().st_mtime_ns
    fit(read_fitting(file), tmp_path / "out")
    assert weights.stat().st_mtime_ns > before


def test_a_fit_that_fails_does_not_take_the_others_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = {"use": "linear", "label": "wide", "settings": {"context": 100, "choose": False}}
    assert main(["fit", str(fitting(tmp_path, wide, {"use": "linear"})), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "failed" in said and "Best model, linear" in said
    found = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert found["models"]["wide"]["failure"] and not found["models"]["linear"]["failure"]


def test_a_single_episode_keeps_its_end_back(tmp_path: Path) -> None:
    log = Log(
        file=str(heater(tmp_path / "one.csv", episodes=1)), outputs=("temperature", "outside"),
        actions={"heater": (0.0, 1.0)}, time="time",
    )  # fmt: skip
    data = log.read().data
    first, rest = divided(data, 0.25)
    assert (first.steps, rest.steps) == (44, 15) and torch.equal(first.y[:, -1], rest.y[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": {}}, "log.file: this key is required"),
        ({"modls": []}, "modls: unknown key; known: log, models, score"),
        ({"models": []}, "at least one"),
        ({"models": [{"use": "lnear"}]}, r"models.0.use: .*did you mean 'linear'"),
        ({"models": [{"use": "truth"}]}, "'truth' is made of a plant, and a log has none"),
        ({"models": [{"use": "linear"}, {"use": "linear"}]}, "set label"),
        ({"models": [{"use": "linear", "settings": {"contxt": 1}}]}, r"models.0.settings: unknown|did you mean"),
        ({"score": {"held_back": 1.0}}, "score: held_back"),
        ({"models": [{"use": "linear", "label": "../x"}]}, "models.0: label becomes a folder"),
        ({"models": [{"use": "linear", "label": "fit.png"}]}, "models.0: label becomes a folder"),
        ({"log": {"file": "x.csv", "outputs": ["y"], "actions": {"y": [0, 1]}}}, "log: column 'y' is named twice"),
    ],
)
def test_a_fitting_file_is_checked_before_anything_is_read(change: dict[str, object], message: str) -> None:
    plain = {"log": {"file": "x.csv", "outputs": ["y"], "actions": {"u": [0, 1]}}, "models": [{"use": "linear"}]}
    with pytest.raises(SpecError, match=message):
        parse_fitting("x", plain | change)


def test_too_little_is_held_back_for_long_predictions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lower score\.horizon, or raise score\.held_back"):
        fit(read_fitting(fitting(tmp_path, horizon=60)), tmp_path / "out")


def test_a_folder_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    fit(read_fitting(fitting(tmp_path)), tmp_path / "out")
    folder = tmp_path / "out" / "linear"
    (folder / "data.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"is not the file that model.json was written with"):
        load_model(folder)
    (folder / "model.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99"):
        load_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match="is no description"):
        load_model(folder)
    with pytest.raises(FileNotFoundError, match="steersman fit"):
        load_model(tmp_path / "nothing")


# ------------------------------------------------------------------ as a plant


def test_without_surprises_an_episode_is_what_the_model_foretells(model: str) -> None:
    sim, saved = simulator(model, surprise=0.0, horizon=12), load_model(model)
    sim.reset(Scenarios(noise.keys(3, sim.n)))
    m = sim.measure()
    start = sim.snapshot().x
    U = torch.rand(sim.n, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = window_at(saved.data, start["at"], saved.model.context)
    assert torch.equal(window.y[:, -1], m.y)
    foretold, _ = saved.model.rollout(saved.model.init(window), U)
    total = torch.zeros(sim.n, dtype=torch.float64)
    for k in range(12):
        before = sim.measure()
        t = sim.step(U[:, k])
        torch.testing.assert_close(t.cost, before.y[:, 0].square() + 0.1 * U[:, k, 0])
        torch.testing.assert_close(sim.perform(), foretold[:, k], rtol=1e-9, atol=1e-9)
        total += t.cost
    assert bool(t.truncated.all()) and bool((sim.step(U[:, 0]).cost == 0).all())


def test_surprises_are_errors_that_the_model_made(model: str) -> None:
    """One step from many starts scatters about the prediction as the recording does."""
    quiet, loud = simulator(model, n=2000, surprise=0.0), simulator(model, n=2000)
    scenarios = Scenarios(noise.keys(0, 2000))
    u = torch.full((2000, 1), 0.5, dtype=torch.float64)
    for sim in (quiet, loud):
        sim.reset(scenarios)
        sim.step(u)
    away = (loud.perform() - quiet.perform())[:, 0]
    assert float(away.std()) == pytest.approx(0.02, rel=0.15) and abs(float(away.mean())) < 0.002
    assert len(away.unique()) > 150
    twice = simulator(model, n=2000, surprise=2.0)
    twice.reset(scenarios)
    twice.step(u)
    torch.testing.assert_close((twice.perform() - quiet.perform())[:, 0], 2 * away, rtol=1e-6, atol=1e-9)


def run(sim: FittedSimulator, keys: Tensor, steps: int = 5) -> Tensor:
    sim.reset(Scenarios(keys))
    out = []
    for k in range(steps):
        sim.step(torch.full((sim.n, 1), 0.1 * k, dtype=torch.float64))
        out.append(sim.perform())
    return torch.stack(out, dim=1)


def test_a_row_depends_on_its_key_alone(model: str) -> None:
    keys = noise.keys(5, 6)
    whole = run(simulator(model, n=6), keys)
    order = torch.tensor([3, 0, 5])
    torch.testing.assert_close(run(simulator(model, n=3), keys[order]), whole[order], rtol=1e-12, atol=1e-12)
    sim = simulator(model, n=6)
    run(sim, keys, 3)
    sim.reset(Scenarios(keys.flip(0)), torch.arange(6) < 2)
    assert sim.measure().k.tolist() == [0, 0, 3, 3, 3, 3]
    torch.testing.assert_close(sim.perform()[2:], whole[2:, 2], rtol=1e-12, atol=1e-12)


def test_a_snapshot_brings_an_episode_back(model: str) -> None:
    sim = simulator(model)
    run(sim, noise.keys(1, 4), 3)
    saved = sim.snapshot()
    u = torch.ones(4, 1, dtype=torch.float64)
    first = (sim.step(u).cost, sim.perform())
    sim.restore(saved)
    again = (sim.step(u).cost, sim.perform())
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_limits_end_an_episode_as_failed_and_nan_as_diverged(model: str) -> None:
    warm = Limit(name="warm", index=0, low=-100.0, high=19.5)
    sim = simulator(model, n=3, objective=replace(TRACK, limits=(warm,)), horizon=59, price=7.0)
    sim.reset(Scenarios(noise.keys(0, 3)))
    u = torch.tensor([[1.0], [0.0], [float("nan")]], dtype=torch.float64)
    t = sim.step(u)
    assert int(t.status[2]) == int(Status.DIVERGED) and float(t.cost[2]) == pytest.approx(7.0 * 59)
    for _ in range(58):
        t = sim.step(torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64))
    assert t.status.tolist() == [int(Status.TERMINATED), int(Status.OK), int(Status.DIVERGED)]
    assert float(sim.perform()[0, 0]) > 19.5 and int(sim.measure().k[0]) < 59


def test_exogenous_outputs_repeat_the_recording(tmp_path: Path) -> None:
    text = FITTING.replace('episode = "run"', 'episode = "run"\nexogenous = ["outside"]', 1)
    heater(tmp_path / "heater.csv")
    lines = (tmp_path / "heater.csv").read_text().splitlines()
    moved = [",".join([*line.split(",")[:3], str(float(i)), line.split(",")[4]]) for i, line in enumerate(lines[1:])]
    (tmp_path / "heater.csv").write_text("\n".join([lines[0], *moved]))
    (tmp_path / "fit.toml").write_text(text.split('[[models]]\nuse = "neural"')[0])
    fit(read_fitting(tmp_path / "fit.toml"), tmp_path / "out")
    sim = simulator(str(tmp_path / "out" / "linear"), horizon=30)
    sim.reset(Scenarios(noise.keys(2, 4)))
    first = sim.perform()[:, 1]
    for k in range(30):
        sim.step(torch.zeros(4, 1, dtype=torch.float64))
        assert sim.perform()[:, 1].tolist() == (first + k + 1).tolist()
    with pytest.raises(ValueError, match="exogenous outputs repeat the recording"):
        simulator(str(tmp_path / "out" / "linear"), horizon=100)


def test_it_says_how_often_it_was_asked_beyond_its_data(tmp_path: Path) -> None:
    small = {"context": 1, "hidden": [8], "members": 2, "steps": 50, "rollout": 1}
    fit(read_fitting(fitting(tmp_path, {"use": "neural", "settings": small})), tmp_path / "out")
    sim = simulator(str(tmp_path / "out" / "neural"), n=8, horizon=50)
    sim.reset(Scenarios(noise.keys(0, 8)))
    assert sim.notes == ()
    for _ in range(50):
        sim.step(torch.ones(8, 1, dtype=torch.float64))  # no recording kept it on for so long
    (note,) = sim.notes
    assert float(note.rsplit(" in ", 1)[1].split("%")[0]) > 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"objective": None}, "objective: a log holds no costs"),
        ({"horizon": 0}, "horizon must be"),
        ({"surprise": -1.0}, "surprise must be"),
        ({"device": "meta"}, "run on the CPU"),
        ({"model": "nowhere"}, "no model.json at nowhere"),
    ],
)
def test_bad_settings_are_named(model: str, more: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        FittedSimulator(2, **({"model": model, "objective": TRACK} | more))  # type: ignore[arg-type]


def test_no_episode_begins_beyond_the_limits(model: str) -> None:
    limit = Limit(name="warm", index=0, low=17.5, high=18.5)
    sim = simulator(model, n=256, objective=replace(TRACK, limits=(limit,)), price=1.0)
    sim.reset(Scenarios(noise.keys(0, 256)))
    start = sim.perform()[:, 0]
    assert float(start.min()) >= 17.5 and float(start.max()) <= 18.5 and len(start.unique()) > 10
    with pytest.raises(ValueError, match="lies beyond them wherever an episode could begin"):
        simulator(model, objective=replace(TRACK, limits=(replace(limit, low=90.0, high=91.0),)))


def test_scenarios_repeat_up_to_rounding_of_the_batch(model: str) -> None:
    assert all(repeats(partial(simulator, model, price=0.0), noise.keys(seed, 3), 20) is None for seed in range(5))


def test_a_further_horizon_of_scores_asks_for_no_new_fit(tmp_path: Path) -> None:
    fit(read_fitting(fitting(tmp_path, horizon=5)), tmp_path / "out")
    before = (tmp_path / "out" / "linear" / "model.json").stat().st_mtime_ns
    found = fit(read_fitting(fitting(tmp_path, horizon=10)), tmp_path / "out")
    assert found.horizon == 10 and (tmp_path / "out" / "linear" / "model.json").stat().st_mtime_ns == before


def test_where_every_fit_failed_there_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = {"use": "linear", "settings": {"context": 100, "choose": False}}
    assert main(["fit", str(fitting(tmp_path, wide)), "--out", str(tmp_path / "out")]) == 1
    assert "Predictions" not in capsys.readouterr().out and not (tmp_path / "out" / "fit.png").exists()
    json.loads((tmp_path / "out" / "fit.json").read_text(), parse_constant=pytest.fail)


# ------------------------------------------------------------------ a simulator of somebody else's


class Shifted(PlantSimulator):
    """A simulator of one's own: a pendulum whose rows are told that they are one step on."""

    def __init__(
        self, n: int, gain: float = 1.0, *, device: torch.device | str = "cpu", price: float | None = None
    ) -> None:
        from steersman.envs.registry import make_plant

        super().__init__(make_plant("steersman/Pendulum-v1"), n, device=device, price=price)
        self.gain = gain

    def step(self, u: Tensor):  # type: ignore[no-untyped-def]
        return super().step(self.gain * u)


def test_a_simulator_class_takes_part_by_its_name() -> None:
    sim = make_simulator(f"{__name__}:Shifted", 3, gain=0.5)
    assert isinstance(sim, Shifted) and sim.gain == 0.5 and sim.n == 3
    with pytest.raises(ValueError, match="says by itself what max_episode_steps"):
        make_simulator(f"{__name__}:Shifted", 3, max_episode_steps=5)


# ------------------------------------------------------------------ the page


def test_the_page_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    heater(Path("heater.csv"), steps=70)
    Path("heater.toml").write_text(FITTING.replace("steps = 300", "steps = 20"))
    quick = CONTROL.replace("episodes = 16", "episodes = 4").replace("tune = 24", "tune = 4")
    Path("control.toml").write_text("episodes = 6\n" + quick)
    assert main(["fit", "heater.toml"]) == 0
    assert Path("results/heater/fit.png").stat().st_size > 10_000
    assert main(["compare", "control.toml", "--workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.split("\n", 1)[1].split("Predictions", 1)[-1].split("\n", 1)[1])
    cost = {score["controller"]: score["cost"] for score in found["scores"]}
    assert cost["mppi (linear)"] < 0.2 * cost["zero"] and cost["pid"] < 0.2 * cost["zero"]
    assert "minus the reward" not in json.dumps(found)
