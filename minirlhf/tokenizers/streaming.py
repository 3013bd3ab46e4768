"""Text out of ids that arrive one at a time."""

import codecs

from minirlhf.tokenizers.tokenizer import Tokenizer


class StreamDecoder:
    """Shows text as soon as its bytes are complete: the pushes and the flush joined are tokenizer.decode(all ids).

    A character may be spread over several tokens; its first bytes are held back until the last one has come.
    Bytes that can no longer become UTF-8 come out as U+FFFD. skip_control leaves control tokens out.
    """

    def __init__(self, tokenizer: Tokenizer, skip_control: bool = False):
        self.tokenizer = tokenizer
        self.hidden = frozenset(tokenizer.control.values()) if skip_control else frozenset[int]()
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this id completes, perhaps none. Raises ValueError for an id outside the vocabulary."""
        if token_id in self.hidden:
            return ""
        return self.decoder.decode(self.tokenizer.decode_bytes([token_id]))

    def flush(self) -> str:
        """What was held back, as U+FFFD; afterwards the decoder is as new."""
        return self.decoder.decode(b"", final=True)
