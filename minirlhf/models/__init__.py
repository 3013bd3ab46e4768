"""The GPT decoder, its heads, checkpoints, and the way to and from other libraries."""
