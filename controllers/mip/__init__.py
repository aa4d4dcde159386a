"""Mixed-integer model-predictive control with piecewise-linear models."""
