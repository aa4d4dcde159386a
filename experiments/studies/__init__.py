"""One script per published claim."""
