"""Gradient-free optimisers that see vectors and costs only."""

if __name__ != "steersman.optimizers":
    raise ImportError("import steersman.optimizers, not optimizers: the folder is mapped (see the README)")
