"""Simulators that we did not write: rows of them side by side, here or in worker processes."""
