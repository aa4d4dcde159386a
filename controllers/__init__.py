"""Control laws behind one contract."""

if __name__ != "steersman.controllers":
    raise ImportError("import steersman.controllers, not controllers: the folder is mapped (see the README)")
