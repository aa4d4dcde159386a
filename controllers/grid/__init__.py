"""Controllers of power grids."""
