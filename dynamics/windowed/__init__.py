"""Networks on windows of outputs and actions."""
