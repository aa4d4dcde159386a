"""Models that know the plant: itself, and its expansion at a point."""
