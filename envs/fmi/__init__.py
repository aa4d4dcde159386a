"""Functional Mock-up Units as plants: co-simulation of FMI 2.0 and 3.0 over FMPy (extra ``fmi``)."""

from steersman.envs.fmi.simulator import FmuSimulator

__all__ = ["FmuSimulator"]
