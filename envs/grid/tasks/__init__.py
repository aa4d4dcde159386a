"""Tasks on grids: what happens, what can be done about it and what it costs."""
