"""Physics-informed networks that stand for the solution of a differential equation."""
