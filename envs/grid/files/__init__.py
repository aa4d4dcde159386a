"""Readers of network and machine data."""
