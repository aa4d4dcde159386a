"""Studies of partial differential equations."""
