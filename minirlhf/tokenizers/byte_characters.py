"""GPT-2's way of writing bytes as visible characters, as its files and Hugging Face's have it."""


def byte_characters() -> str:
    """GPT-2's visible sign for each byte: itself if it prints in Latin-1, else the next free one from U+0100 on."""
    prints = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in prints]
    return "".join(chr(byte) if byte in prints else chr(256 + hidden.index(byte)) for byte in range(256))
