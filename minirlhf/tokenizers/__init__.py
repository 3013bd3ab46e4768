"""Text to token ids and back: bytes, byte pair encoding, streaming, files, chat layout."""
