"""Reinforcement learning with a table instead of a network: a world small enough that the right answer is known."""
