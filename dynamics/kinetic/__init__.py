"""Models of populations by reaction kinetics."""
