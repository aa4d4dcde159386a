"""A model fitted once more, to its own data and to episodes under the policy that was trained through it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from steersman.controllers.base import Controller, Training
from steersman.controllers.neural.experience import Excited, Experience, experience
from steersman.controllers.rollout import Episode, run_episodes
from steersman.dynamics.base import Dynamics, Trajectories

SHARE = 0.2
"""Of the exciter's signal, in every other episode under the policy: a law alone does not tell actions from outputs."""
_EPISODES = 0x2EF17
"""Separates these scenarios from those of starting points."""


def under_policy(controller: Controller, training: Training, episodes: int, *, context: int, ahead: int) -> Experience:
    """Episodes under a policy, every other one with a little excitation."""
    simulator, keys = training.simulate(episodes), _scenarios(training, episodes)
    controller.reset(episodes)
    odd = torch.arange(episodes, device=keys.device) % 2 == 1
    act = Excited(lambda m: controller.act(m).u, training.excite(), simulator.actions, odd, keys, SHARE)
    return experience(simulator, keys, act, context=context, ahead=ahead)


def paired(controller: Controller, training: Training, episodes: int) -> Episode:
    """The rows of :func:`under_policy` that were not excited, met by the policy of now."""
    keys = _scenarios(training, episodes)[::2]
    simulator = training.simulate(len(keys))
    controller.reset(len(keys))
    return run_episodes(simulator, simulator.scenarios(keys), lambda m: controller.act(m).u, controller.preview)


def _scenarios(training: Training, episodes: int) -> Int64[Tensor, "n"]:
    return training.keys(episodes, start=_EPISODES * episodes)


def refitted(model: Dynamics, training: Training, data: Sequence[Trajectories]) -> Dynamics:
    """A copy of the model, fitted to all of the data; the model itself, which others share, stays as it is.

    A training with a folder keeps the fit's state in it and goes on from there, as fits do.
    """
    own = copy.deepcopy(model)
    own.checkpoint = None if training.folder is None else training.folder / "refit"
    own.progress = lambda fraction, text: training.progress(fraction, f"fitting again: {text}")
    return own.fit(Trajectories.join(data))
