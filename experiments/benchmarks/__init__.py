"""Performance claims, measured against peers in one run."""
