"""Models of a recorded log: fitted, scored, kept in a folder, and run as the plant that controllers are compared on."""

from steersman.experiments.fitted.simulator import FittedSimulator

__all__ = ["FittedSimulator"]
