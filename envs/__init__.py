"""Plants, simulators and gymnasium environments."""

if __name__ != "steersman.envs":
    raise ImportError("import steersman.envs, not envs: the folder is mapped (see the README)")
