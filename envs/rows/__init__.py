"""Simulators of rows that are not one batch: each row runs for itself, here or in a process of its own."""
