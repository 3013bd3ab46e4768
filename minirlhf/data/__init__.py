"""Data: reading files of every usual shape, cleaning them, and turning them into batches of token ids."""
