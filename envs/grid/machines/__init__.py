"""Machines, inverters and their regulators."""
