"""minirlhf: the whole road from raw text to a model tuned on human preference, written to be read."""

__version__ = "0.1.0"
