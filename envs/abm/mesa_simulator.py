"""Any Mesa model as a simulator: replicas side by side, in this process or in workers."""

from __future__ import annotations

from typing import Any

from steersman.envs.abm import _mesa
from steersman.envs.abm.mesa_task import MesaTask, Replica
from steersman.envs.rows.base import Episode, Source
from steersman.envs.rows.target import TargetRows


class Replicas(Source):
    """Running models of a task."""

    def __init__(self, task: MesaTask) -> None:
        """Store the task."""
        self._task = task
        self.shape = len(task.measured), len(task.performed or task.measured)

    def start(self, seed: int, row: int) -> Replica:
        """See :class:`~steersman.envs.rows.base.Source`."""
        return Replica(self._task, seed)

    def free(self, episodes: list[Episode]) -> None:
        """Free the models; Mesa alone would keep each one alive."""
        _mesa.forget([episode.model for episode in episodes if isinstance(episode, Replica)])
        episodes.clear()
        _mesa.collect_garbage()


class MesaSimulator(TargetRows):
    """``n`` replicas of a Mesa model.

    A scenario is a seed: it is handed to ``task.model`` and also seeds the global generators while the model is
    built and stepped. Every reset frees the old model. The reference is the task's target.
    """

    def __init__(self, task: MesaTask, n: int, *, workers: int = 0, price: float | None = None) -> None:
        """Reserve rows.

        Args:
            task: The model as a control problem.
            n: Rows.
            workers: Processes that share the rows; 0 runs them here.
            price: Price of a failure for a task that states none, by default found when a row fails
                (:mod:`steersman.envs.failure`).

        Raises:
            ValueError: If there is no row, or a negative number of workers.
        """
        self.task = task
        problem = task.problem
        super().__init__(
            Replicas(task), problem, n, target=task.target or (0.0,) * problem.nz,
            workers=workers, price=price, what="the Mesa simulator",
        )  # fmt: skip

    def unpriced(self, n: int) -> MesaSimulator:
        """See :class:`~steersman.envs.simulator.Simulator`."""
        return MesaSimulator(self.task, n, workers=self.workers, price=0.0)

    @property
    def models(self) -> list[Any]:
        """The running models, for pictures.

        Raises:
            RuntimeError: If they run in worker processes.
        """
        return [episode.model if isinstance(episode, Replica) else None for episode in self._local.episodes]
