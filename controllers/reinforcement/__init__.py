"""Reinforcement learning by stable-baselines3."""
