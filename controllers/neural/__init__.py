"""Policies that are trained through a model, or to imitate a planner."""
