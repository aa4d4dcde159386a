"""Agent-based plants."""
