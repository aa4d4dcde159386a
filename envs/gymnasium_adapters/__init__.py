"""Gymnasium on both sides: our plants as its environments, and its environments as our simulators."""
