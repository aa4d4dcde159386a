"""Dispatch: what generation costs, by the DC model and by opening lines."""
