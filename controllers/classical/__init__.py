"""Control laws of the textbooks, and the baselines that all others must beat."""
