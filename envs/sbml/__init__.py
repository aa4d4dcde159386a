"""Models in the Systems Biology Markup Language as plants, integrated by libroadrunner (extra ``sbml``)."""

from steersman.envs.sbml.simulator import SbmlSimulator

__all__ = ["SbmlSimulator"]
