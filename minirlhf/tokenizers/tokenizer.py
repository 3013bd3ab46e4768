"""The tokenizer: a frozen value that turns text into ids and ids into text.

Ids are laid out in three parts: 256 single bytes, one id per merge in the order learnt, then the control tokens.
Control tokens steer a model (padding, end, who speaks). Text can never produce one: their names in a text are
encoded letter by letter like any other text, unless the caller allows them by name.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from operator import index

import regex

from minirlhf.errors import UserError
from minirlhf.tokenizers.merges import Pair, PieceCache, apply_merges
from minirlhf.tokenizers.pattern import BLOCK_CHARACTERS, blocks, compile_pattern, portions, splitter, stretches
from minirlhf.tokenizers.processes import in_batches, map_in_processes

BATCH_CHARACTERS = 1 << 19  # how much text a process encodes at a time; small, so that all end at about the same time
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CONTROL_TOKENS = (PAD, END, SYSTEM, USER, ASSISTANT)


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019).

    tokens   the bytes of every ordinary id: first the 256 single bytes in any order, then one token per merge
    merges   pairs of ids in the order learnt; merge number r makes id 256 + r
    pattern  the name of the split pattern, "gpt2", "gpt4" or "bytes" (no merges)
    control  control token -> id; the ids follow the ordinary ones; PAD, END, SYSTEM, USER and ASSISTANT are among them
    Raises ValueError if these do not fit together, in particular if PAD and END are not two different ids.
    """

    tokens: tuple[bytes, ...] = field(repr=False)
    merges: tuple[Pair, ...] = field(repr=False)
    pattern: str
    control: dict[str, int]

    def __post_init__(self) -> None:
        compile_pattern(self.pattern)
        if sorted(self.tokens[:256]) != [bytes([byte]) for byte in range(256)]:
            raise ValueError("the first 256 tokens must be the 256 single bytes, each once")
        if len(self.tokens) != 256 + len(self.merges):
            raise ValueError(f"{len(self.merges)} merges make {256 + len(self.merges)} tokens, got {len(self.tokens)}")
        for new_id, (left, right) in enumerate(self.merges, start=256):
            if not (0 <= left < new_id and 0 <= right < new_id):
                raise ValueError(
                    f"merge {new_id - 256} joins {left} and {right}, but only ids below {new_id} exist yet"
                )
            if self.tokens[new_id] != self.tokens[left] + self.tokens[right]:
                raise ValueError(f"merge {new_id - 256} does not make the bytes of token {new_id}")
        if len(set(self.merges)) != len(self.merges):
            raise ValueError("a pair of ids is merged twice")
        if self.merges and self.pattern == "bytes":
            raise ValueError('the pattern "bytes" is for tokenizers without merges')
        missing = [name for name in CONTROL_TOKENS if name not in self.control]
        if missing:
            raise ValueError(f"control tokens are missing: {', '.join(missing)}")
        if list(self.control.values()) != list(range(len(self.tokens), len(self.tokens) + len(self.control))):
            raise ValueError(f"control ids must count up from {len(self.tokens)}, each once, got {self.control}")
        if "" in self.control:
            raise ValueError("a control token has no name")

    @property
    def vocab_size(self) -> int:
        """How many ids there are, control tokens included."""
        return len(self.tokens) + len(self.control)

    @property
    def pad_id(self) -> int:
        """The id that fills up batches."""
        return self.control[PAD]

    @property
    def end_id(self) -> int:
        """The id that ends an answer or a document."""
        return self.control[END]

    @cached_property
    def _byte_ids(self) -> bytes:
        """A translation table from byte to id."""
        id_of = {token: token_id for token_id, token in enumerate(self.tokens[:256])}
        return bytes(id_of[bytes([byte])] for byte in range(256))

    @property
    def _code(self) -> str:
        """In how many bytes an id is packed, as array's type code: 1, 2 or 4."""
        return "B" if not self.merges else "H" if self.vocab_size <= 1 << 16 else "I"

    @cached_property
    def _ids_of_pre_token(self) -> PieceCache:
        merged_ids = {pair: new_id for new_id, pair in enumerate(self.merges, start=256)}
        byte_ids = self._byte_ids

        def ids_of(pre_token: str) -> bytes:
            return array(self._code, apply_merges(pre_token.encode("utf-8").translate(byte_ids), merged_ids)).tobytes()

        return PieceCache(ids_of)

    @cached_property
    def _ids_of_stretch(self) -> PieceCache:
        split, ids_of = splitter(self.pattern), self._ids_of_pre_token
        return PieceCache(lambda stretch: b"".join(map(ids_of.__getitem__, split(stretch))))

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        names = {token_id: name.encode("utf-8") for name, token_id in self.control.items()}
        return dict(enumerate(self.tokens)) | names

    def encode(self, text: str, allow_control: Collection[str] = ()) -> list[int]:
        """The ids of a text. Control tokens named in allow_control become their one id, all others stay text.

        Raises UserError for an unpaired surrogate, ValueError for an allowed name that is no control token.
        """
        if not allow_control:
            return self._encode_packed(text).tolist()
        unknown = [name for name in allow_control if name not in self.control]
        if unknown:
            raise ValueError(f"not control tokens of this tokenizer: {unknown}; it has {list(self.control)}")
        names = sorted(allow_control, key=len, reverse=True)  # so that a name wins over its own beginning
        parts = regex.split(f"({'|'.join(map(regex.escape, names))})", text)  # text, name, text, name, … text
        ids: list[int] = []
        for position, part in enumerate(parts):
            ids.extend([self.control[part]] if position % 2 else self.encode(part))
        return ids

    def encode_batch(self, texts: Iterable[str], processes: int = 1) -> list[list[int]]:
        """The ids of each text; over several processes if asked, and if there is more text than BATCH_CHARACTERS."""
        if processes == 1:
            return [self.encode(text) for text in texts]
        done = map_in_processes(self._encode_all_packed, in_batches(texts, BATCH_CHARACTERS), processes)
        return [ids.tolist() for batch in done for ids in batch]

    def _encode_all_packed(self, texts: Iterable[str]) -> list["array[int]"]:
        return list(map(self._encode_packed, texts))

    def _encode_packed(self, text: str) -> "array[int]":
        ids = array(self._code)
        for portion in self._encode_portions(blocks(text), BLOCK_CHARACTERS):
            ids.extend(portion)
        return ids

    def __getstate__(self) -> dict[str, object]:
        """The tokenizer without its caches, for another process."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def encode_iterable(self, pieces: Iterable[str], block_characters: int = BLOCK_CHARACTERS) -> Iterator[int]:
        """The ids of "".join(pieces), one after another, in memory that does not grow with the text.

        The cuts between the pieces leave no trace: words and white space that straddle them are put together first.
        Memory is about block_characters, or the longest pre-token if that is longer. Raises UserError as encode does.
        """
        return chain.from_iterable(self._encode_portions(pieces, block_characters))

    def _encode_portions(self, pieces: Iterable[str], block_characters: int) -> Iterator["array[int]"]:
        if not self.merges:
            return (array(self._code, to_utf8(piece).translate(self._byte_ids)) for piece in pieces)
        return map(self._encode_portion, portions(pieces, block_characters))

    def _encode_portion(self, text: str) -> "array[int]":
        try:
            if text.isascii():
                ids = map(self._ids_of_pre_token.__getitem__, splitter(self.pattern)(text))
            else:  # takes much longer to split, so only the stretches that are new are split
                ids = map(self._ids_of_stretch.__getitem__, stretches(text))
            return array(self._code, b"".join(ids))  # packed ids join faster than lists of them
        except UnicodeEncodeError:
            to_utf8(text)
            raise

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids, control tokens by name. Raises ValueError for an id outside the vocabulary."""
        try:
            return b"".join(map(self._bytes_of.__getitem__, map(index, ids)))
        except KeyError as error:
            raise ValueError(f"id {error.args[0]} is outside the vocabulary of {self.vocab_size} ids") from None

    def decode(self, ids: Iterable[int], skip_control: bool = False) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD. skip_control leaves control tokens out."""
        if skip_control:
            hidden = set(self.control.values())
            ids = (token_id for token_id in map(index, ids) if token_id not in hidden)
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def build_tokenizer(
    merges: Iterable[Pair],
    pattern: str,
    byte_order: Iterable[int] = range(256),
    control: Iterable[str] = CONTROL_TOKENS,
) -> Tokenizer:
    """A tokenizer from its merges: spells out the tokens and numbers the control tokens after them."""
    tokens = [bytes([byte]) for byte in byte_order]
    merges = tuple(merges)
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return Tokenizer(tuple(tokens), merges, pattern, {name: len(tokens) + at for at, name in enumerate(control)})


def byte_tokenizer() -> Tokenizer:
    """One id per byte of UTF-8, no merges, and the five control tokens: 261 ids."""
    return build_tokenizer((), "bytes")


def to_utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text; a UserError for an unpaired surrogate, which UTF-8 cannot express."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.start + 21]
        raise UserError(
            "the text holds an unpaired surrogate, half of a character that takes two code units",
            where=f"near {around!a}",
            found=f"U+{ord(text[error.start]):04X} on its own",
            expected="Unicode text that UTF-8 can express",
            fix="write the whole character, or remove the half (in JSON, \\ud83d needs its partner such as \\ude00)",
        ) from None
