"""Policies as torch modules, differentiable ones and ones that are not."""

if __name__ != "steersman.optimizers.policies":
    raise ImportError("import steersman.optimizers.policies, not policies: the folder is mapped (see the README)")
