"""Controller comparisons, studies and benchmarks."""

if __name__ != "steersman.experiments":
    raise ImportError("import steersman.experiments, not experiments: the folder is mapped (see the README)")
