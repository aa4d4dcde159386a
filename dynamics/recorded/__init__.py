"""Data that somebody else has recorded: tables of measurements and actions, read as trajectories."""
