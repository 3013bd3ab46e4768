"""Layers written by hand: attention, norms, MLPs, rotary positions, and the key-value cache."""
