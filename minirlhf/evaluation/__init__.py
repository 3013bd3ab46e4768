"""Measuring a model, naming what went wrong in a run, and showing both."""
