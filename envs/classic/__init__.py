"""Benchmark systems of the control literature."""
