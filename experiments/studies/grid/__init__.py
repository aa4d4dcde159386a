"""Studies of power grids."""
