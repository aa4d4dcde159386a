"""Estimators of what is not measured."""
