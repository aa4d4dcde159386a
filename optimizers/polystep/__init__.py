"""PolyStep: steps to the softmax-weighted mean of randomly rotated polytopes."""

if __name__ != "steersman.optimizers.polystep":
    raise ImportError("import steersman.optimizers.polystep, not polystep: the folder is mapped (see the README)")
