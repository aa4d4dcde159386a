"""Models that controllers plan with: learned, linear and true."""

if __name__ != "steersman.dynamics":
    raise ImportError("import steersman.dynamics, not dynamics: the folder is mapped (see the README)")
