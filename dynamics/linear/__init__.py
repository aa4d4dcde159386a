"""Linear models, their identification and the equations that regulators solve on them."""
