"""Sampling and generating with a key-value cache."""
