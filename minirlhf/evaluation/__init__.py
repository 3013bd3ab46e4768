"""Measuring a model and diagnosing a run: numbers only; pages are in reports/."""
