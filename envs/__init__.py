"""Plants, simulators and gymnasium environments.

Importing this package registers every plant with gymnasium, so that
``gymnasium.make("steersman.envs:steersman/KuramotoSivashinsky-v1")`` works from any directory.
"""

if __name__ != "steersman.envs":
    raise ImportError("import steersman.envs, not envs: the folder is mapped (see the README)")

from steersman.envs.registry import make_plant, make_simulator, plant_ids, register_envs

register_envs()

__all__ = ["make_plant", "make_simulator", "plant_ids", "register_envs"]
