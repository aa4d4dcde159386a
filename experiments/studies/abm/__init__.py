"""Studies of agent-based models."""
