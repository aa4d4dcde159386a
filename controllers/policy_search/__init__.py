"""Policies trained without gradients: a population of policies times a set of scenarios, rolled out as one batch."""

from steersman.controllers.policy_search.controller import PolicySearch

__all__ = ["PolicySearch"]
