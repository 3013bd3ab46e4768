"""Several processes: what a rank knows, and how a command starts the others."""
