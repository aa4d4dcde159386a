"""Models in continuous time."""
