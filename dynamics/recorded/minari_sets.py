"""Minari data sets (https://minari.farama.org): written of plants and trajectories, read as columns of a log."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.collect import begin, episode_steps
from steersman.envs.actions import ActionSet
from steersman.envs.episodes import Act, episodes
from steersman.envs.importing import needed
from steersman.envs.plant import ControlProblem
from steersman.envs.simulator import Measurement, Simulator

PREFIX = "minari:"
"""What stands before the id of a data set where a file could be named."""
_OWN = "steersman"
"""Entry of the metadata with names, period and actions, as JSON."""
_REST = ("reward", "terminated", "truncated", "time", "episode")


def record(
    id: str,
    simulator: Simulator,
    policy: Act,
    *,
    count: int,
    seed: int,
    steps: int | None = None,
    env: str | None = None,
) -> Path:
    """Run episodes and write them to a local Minari data set, with their rewards and ends.

    They are the episodes that :func:`~steersman.dynamics.collect.collect` runs with this seed. A reward is minus the
    cost of its step, terminal costs and prices of failures included. Episodes that reach the horizon, or are broken off
    after ``steps``, are truncated; failures and goals terminate. Where a row diverges, its last outputs are repeated.

    Args:
        id: Id of the new data set, such as ``heater/held-v0``.
        simulator: Where to run.
        policy: An exciter, or any function of the measurement.
        count: Episodes, in rounds of ``simulator.n``; the last round is kept whole.
        seed: Determines scenarios and excitation.
        steps: Control steps of an episode; the problem's horizon by default.
        env: Id of a gymnasium environment that the data set names, such as ``steersman.envs:steersman/Heat-v1``.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: If a number is out of range, or there is such a data set already.
        ImportError: Without the extra ``data``.
    """
    length = episode_steps(steps, simulator.problem.horizon)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    _minari()
    parts, rewards, ends = [], [], []
    for i in range(-(-count // simulator.n)):
        found, reward, terminated = _round(simulator, policy, seed, i, length)
        parts.append(found)
        rewards.append(_padded(reward, length))
        ends.append(terminated)
    data = Trajectories.join(parts)
    whole = torch.cat(rewards)[:, : data.u.shape[1]]
    return write(id, data, simulator.problem, rewards=whole, terminated=torch.cat(ends), env=env)


def write(
    id: str,
    data: Trajectories,
    problem: ControlProblem,
    *,
    rewards: Float[Tensor, "N T"] | None = None,
    terminated: Bool[Tensor, "N"] | None = None,
    env: str | None = None,
) -> Path:
    """Write trajectories to a local Minari data set: measured outputs as observations, actions as gymnasium has them.

    Performance outputs are not written. At gaps (``valid`` is False in between) an episode is divided into several.

    Args:
        id: Id of the new data set.
        data: The trajectories.
        problem: Names, action set and period.
        rewards: Reward of each step; by default they are NaN, since trajectories hold no costs.
        terminated: Episodes whose last step terminated them; by default all are truncated.
        env: As in :func:`record`.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: If a shape is wrong, no transition happened, or there is such a data set already.
        ImportError: Without the extra ``data``.
    """
    minari = _minari()
    n, t = data.valid.shape
    rewards = torch.full((n, t), torch.nan) if rewards is None else rewards
    terminated = torch.zeros(n, dtype=torch.bool) if terminated is None else terminated
    for name, value, shape in (("rewards", rewards, (n, t)), ("terminated", terminated, (n,))):
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, for these trajectories, got {tuple(value.shape)}")
    actions = problem.actions
    if data.y.shape[2] != problem.ny or data.u.shape[2] != actions.m:
        raise ValueError(
            f"problem has {problem.ny} outputs and {actions.m} actions, and data {data.y.shape[2]} and "
            f"{data.u.shape[2]}; give the problem of the simulator that they are of"
        )
    buffers = list(_buffers(data, actions, rewards, terminated))
    if not buffers:
        raise ValueError("data hold no transition that happened; there is nothing to write")
    named = None if env is None else gymnasium.make(env)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of authors and papers that are not named
        made = minari.create_dataset_from_buffers(
            id, buffers, env=named, action_space=actions.space(np.float64), description="Recorded by Steersman.",
            observation_space=spaces.Box(-np.inf, np.inf, (problem.ny,), np.float64),
        )  # fmt: skip
    if named is not None:
        named.close()
    own = {name: value for name, value in asdict(actions).items() if not name.startswith("_")}
    own |= {name: list(map(str, own[name])) for name in ("lower", "upper")}  # JSON has no infinity
    told = {"measured": problem.measured, "period": problem.period, "time_unit": problem.time_unit, "actions": own}
    made.storage.update_metadata({_OWN: json.dumps(told)})
    return Path(made.storage.data_path).parent


def read_set(id: str) -> dict[str, NDArray[Any]]:
    """Columns of a local data set, one row for each observation.

    Outputs and actions have their names where :func:`record` or :func:`write` made the set, and are ``observation[0]``,
    ``action[0]`` and so on otherwise, with the keys of dictionaries in between (``observation.goal[1]``), or
    ``observation`` and ``action`` where they are single numbers. Beside them stand ``episode``, ``reward``,
    ``terminated``, ``truncated`` and, where the period is known, ``time``. The last row of an episode, where nothing
    was done any more, repeats the action before.

    Raises:
        FileNotFoundError: If there is no such data set on this machine.
        ValueError: If it holds no numbers.
        ImportError: Without the extra ``data``.
    """
    minari = _minari()
    folder = _folder(id)
    if not (folder / "data").is_dir():
        raise FileNotFoundError(f"no Minari data set {id!r} in {folder.parent}; 'minari download {id}' may fetch it")
    found = minari.load_dataset(id)
    own = json.loads(found.storage.metadata.get(_OWN, "null"))
    parts: dict[str, list[NDArray[Any]]] = {}
    for episode in found.iterate_episodes():
        steps = len(episode)
        for name, column in _episode(episode, own).items():
            whole = np.concatenate([column, column[-1:]]) if len(column) == steps else column
            parts.setdefault(name, []).append(whole)
    if not parts:
        raise ValueError(f"the Minari data set {id!r} holds no episodes")
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def files_of(id: str) -> list[str]:
    """The files of a local data set; none where there is no such set."""
    _minari()
    return sorted(str(path) for path in (_folder(id) / "data").rglob("*") if path.is_file())


def _minari() -> Any:
    needed("h5py", "data", "a Minari data set")
    return needed("minari", "data", "a Minari data set")


def _folder(id: str) -> Path:
    found: Path = needed("minari.storage.datasets_root_dir", "data", "a Minari data set").get_dataset_path(id)
    return Path(found)


def _round(
    simulator: Simulator, policy: Act, seed: int, number: int, steps: int
) -> tuple[Trajectories, Float[Tensor, "n T"], Bool[Tensor, "n"]]:
    """Episodes of one batch, their rewards, and those that terminated. Steps in which a row diverged are kept."""
    scenarios = begin(simulator, policy, seed, number)
    y, u, rewards, ran = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    terminated = torch.zeros(simulator.n, dtype=torch.bool, device=simulator.device)

    def act(m: Measurement) -> Tensor:
        return simulator.actions.project(policy(m).detach().to(simulator.dtype))

    for step in episodes(simulator, scenarios, act, steps=steps):
        y = y or [step.m.y]
        y.append(torch.where(step.happened[:, None], step.after.y, y[-1]))
        u.append(step.u)
        rewards.append(-step.result.cost)
        ran.append(step.running)
        terminated |= step.result.ended & ~step.result.truncated
    outputs = torch.stack(y, dim=1)
    data = Trajectories(outputs, outputs, torch.stack(u, 1), torch.stack(ran, 1), simulator.problem.period)
    return data, torch.stack(rewards, 1), terminated


def _padded(rewards: Float[Tensor, "n T"], length: int) -> Float[Tensor, "n T2"]:
    return torch.nn.functional.pad(rewards, (0, length - rewards.shape[1]))


def _buffers(data: Trajectories, actions: ActionSet, rewards: Tensor, terminated: Tensor) -> Iterator[Any]:
    """An episode buffer for every stretch of transitions that follow each other."""
    buffer = needed("minari.data_collector", "data", "a Minari data set").EpisodeBuffer
    for row in range(len(data)):
        valid = np.concatenate([[False], data.valid[row].cpu().numpy(), [False]])
        edges = np.flatnonzero(valid[1:] != valid[:-1])
        for first, last in edges.reshape(-1, 2):
            end = np.zeros(last - first, dtype=bool)
            end[-1] = True
            over = bool(terminated[row]) and last == edges[-1]
            yield buffer(
                observations=_numpy(data.y[row, first : last + 1]),
                actions=actions.encode(data.u[row, first:last]).cpu().numpy(),
                rewards=_numpy(rewards[row, first:last]), terminations=end & over, truncations=end & (not over),
            )  # fmt: skip


def _numpy(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().cpu().numpy()


def _episode(episode: Any, own: dict[str, Any] | None) -> dict[str, NDArray[Any]]:
    """Columns of an episode: one entry for each observation, or for each step."""
    rows = len(episode) + 1
    if own is None:
        columns = dict(_columns("observation", episode.observations)) | dict(_columns("action", episode.actions))
        times = {}
    else:
        plain = own["actions"]
        lower, upper = (tuple(map(float, plain[name])) for name in ("lower", "upper"))
        groups = tuple(map(tuple, plain["one_hot"]))
        set_ = ActionSet(lower, upper, tuple(plain["integer"]), groups, tuple(plain["names"]))
        u = set_.decode(torch.from_numpy(np.asarray(episode.actions))).numpy()
        names = (*own["measured"], *set_.names)
        if len({*names, *_REST}) < len(names) + len(_REST):  # one name means two things
            names = (
                *(f"observation[{i}]" for i in range(len(own["measured"]))),
                *(f"action[{i}]" for i in range(set_.m)),
            )
        columns = dict(zip(names, (*episode.observations.T, *u.T), strict=True))
        times = {"time": own["period"] * np.arange(rows)}
    columns = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    rest = {"reward": episode.rewards, "terminated": episode.terminations, "truncated": episode.truncations}
    columns |= {name: np.append(np.asarray(series, dtype=np.float64), np.nan) for name, series in rest.items()}
    return columns | times | {"episode": np.full(rows, str(episode.id), dtype=object)}


def _columns(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Numbers of a space's values, each as a column."""
    if isinstance(value, dict | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from _columns(f"{name}.{key}", part)
        return
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} of the Minari data set must hold numbers, got {found.dtype}")
    if found.ndim == 1:
        yield name, found
    else:
        flat = found.reshape(len(found), -1)
        yield from ((f"{name}[{i}]", flat[:, i]) for i in range(flat.shape[1]))
