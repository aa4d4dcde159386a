"""Comparison presets as TOML."""
