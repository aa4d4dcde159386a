"""Studies of what effort buys: steps, plant steps, ReLUs."""
