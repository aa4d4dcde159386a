"""Power-grid plants."""
