"""Saving and loading, GPT-2's files, and damaged or foreign ones."""

import errno
import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.byte_characters import byte_characters
from minirlhf.tokenizers.storage import export_hugging_face, import_gpt2, load_tokenizer, save_tokenizer
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, build_tokenizer, byte_tokenizer

TEXT = "the cat sat on the mat, # the ## hat 汉字汉字 \n\n" * 3
TRAINED = train_bpe([TEXT], 280, "gpt2")
OTHERS = [TRAINED, byte_tokenizer(), build_tokenizer([(255, 3)], "gpt4", range(255, -1, -1), ["<é>", *CONTROL_TOKENS])]
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("tokenizer", OTHERS)
def test_loading_gives_back_what_was_saved(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "new folder" / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "new folder" / "tokenizer.json")
    assert loaded == tokenizer == load_tokenizer(tmp_path / "new folder")
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert os.listdir(tmp_path / "new folder") == ["tokenizer.json"]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    save_tokenizer(TRAINED, tmp_path / "a.json")
    save_tokenizer(load_tokenizer(tmp_path / "a.json"), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@same_folder
@given(part=st.floats(0, 1, exclude_max=True))
def test_cut_off_file(part, tmp_path):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(TRAINED, path)
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match="damaged or cut off") as caught:
        load_tokenizer(path)
    assert caught.value.where.startswith(str(path))


@pytest.mark.parametrize(
    ("field", "value", "where", "expected"),
    [
        ("format", "other", "format", "minirlhf tokenizer"),
        ("version", 2, "version", "1"),
        ("pattern", "gpt3", "pattern", "gpt2 or gpt4 or bytes"),
        ("pattern", ["gpt2"], "pattern", "gpt2 or gpt4 or bytes"),
        ("byte_order", list(range(255)), "byte_order", "each once"),
        ("byte_order", None, "byte_order", "each once"),
        ("merges", {}, "merges", "a list"),
        ("merges", [[97, 98], [97, 257]], "merges[1]", "from 0 to 256"),
        ("merges", [[97, 98], "ab"], "merges[1]", "two ids"),
        ("merges", [[97, True]], "merges[0]", "two ids"),
        ("merges", [[97, 98, 99]], "merges[0]", "two ids"),
        ("control", ["<|pad|>"], "control", "an object"),
        ("control", {"<|pad|>": 1}, "control", "counting up from 275"),
        ("control", {"<|pad|>": "275"}, "control", "counting up from 275"),
    ],
)
def test_wrong_field(field, value, where, expected, tmp_path):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(TRAINED, path)
    content = json.loads(path.read_text(encoding="utf-8")) | {field: value}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_tokenizer(path)
    assert caught.value.where == f'{path}, field "{where}"'
    assert expected in caught.value.expected
    del content[field]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=field):
        load_tokenizer(path)


def test_fields_that_do_not_fit_together(tmp_path):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(TRAINED, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    control = {name: token_id for name, token_id in content["control"].items() if name != "<|assistant|>"}
    path.write_text(json.dumps(content | {"control": control}), encoding="utf-8")
    with pytest.raises(UserError, match="fit together") as caught:
        load_tokenizer(path)
    assert "<|assistant|>" in caught.value.found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}', "not a tokenizer of minirlhf"),
        (b"[1, 2]", "holds no object"),
        (b"\xff\xfe{\x00", "not UTF-8"),
        (b"", "damaged or cut off"),
        (gzip.compress(b"{}" * 50, mtime=0)[:-9], "gzip file is damaged"),
    ],
)
def test_foreign_file(content, message, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in caught.value.where


def test_hugging_face_file_is_called_by_its_name(tmp_path):
    export_hugging_face(TRAINED, tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="Hugging Face"):
        load_tokenizer(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_tokenizer(tmp_path / "nothing.json")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("save", [save_tokenizer, export_hugging_face])
def test_full_disk_leaves_the_old_file_whole(save, failing, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    save(byte_tokenizer(), path)
    before = path.read_bytes()

    def no_room(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, no_room)
    with pytest.raises(UserError, match="No space left") as caught:
        save(TRAINED, path)
    assert caught.value.where == str(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["tokenizer.json"]


def test_saving_below_a_file(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        save_tokenizer(TRAINED, tmp_path / "file" / "tokenizer.json")


# --- GPT-2's two files ---


def write_gpt2(folder, tokenizer, extra=("<|endoftext|>",), version_line=False, compress=False):
    signs = byte_characters()
    tokens = ["".join(signs[byte] for byte in token) for token in tokenizer.tokens]
    vocab = {token: token_id for token_id, token in enumerate([*tokens, *extra])}
    lines = ["#version: 0.2"] * version_line + [f"{tokens[left]} {tokens[right]}" for left, right in tokenizer.merges]
    pack = gzip.compress if compress else bytes
    (folder / "vocab.json").write_bytes(pack(json.dumps(vocab).encode()))
    (folder / "merges.txt").write_bytes(pack("\n".join([*lines, ""]).encode()))
    return folder / "vocab.json", folder / "merges.txt"


# GPT-2 numbers the bytes that print in Latin-1 first.
PRINTING_FIRST = sorted(range(256), key=lambda byte: byte_characters()[byte])
SHUFFLED = build_tokenizer([(64, 65), (256, 66), (220, 257), (2, 2)], "gpt2", PRINTING_FIRST)  # ab, abc, ␠abc, ##


def test_signs_for_bytes():
    signs = byte_characters()
    assert len(set(signs)) == 256 and not any(sign.isspace() for sign in signs)
    assert [signs[byte] for byte in b" \n!a~\x00\x7f\xa0\xad\xff"] == list("ĠĊ!a~ĀġłŃÿ")


@pytest.mark.parametrize("version_line", [False, True])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("tokenizer", [SHUFFLED, TRAINED])
def test_import_gives_the_same_ids(tokenizer, version_line, compress, tmp_path):
    imported = import_gpt2(*write_gpt2(tmp_path, tokenizer, version_line=version_line, compress=compress))
    assert imported.tokens == tokenizer.tokens and imported.merges == tokenizer.merges
    assert list(imported.control) == ["<|endoftext|>", *CONTROL_TOKENS]
    end_of_text = len(tokenizer.tokens)
    assert imported.control["<|endoftext|>"] == end_of_text and imported.pad_id == end_of_text + 1
    assert imported.encode("##<|endoftext|> abc", ["<|endoftext|>"]) == [
        *tokenizer.encode("##"),
        end_of_text,
        *tokenizer.encode(" abc"),
    ]
    assert end_of_text not in imported.encode("<|endoftext|>")


def test_import_keeps_our_control_tokens_where_the_file_has_them(tmp_path):
    imported = import_gpt2(*write_gpt2(tmp_path, SHUFFLED, extra=["<|end|>", "<|pad|>"]))
    assert list(imported.control) == ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]


def change_json(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_import_of_files_that_do_not_belong_together(tmp_path):
    vocab, merges = write_gpt2(tmp_path, SHUFFLED)
    lines = merges.read_text(encoding="utf-8").splitlines()

    merges.write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="no merge makes.*'##'".replace(".*", "(.|\n)*")):
        import_gpt2(vocab, merges)
    merges.write_text("\n".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match="does not fit the vocabulary") as caught:
        import_gpt2(vocab, merges)
    assert caught.value.where == f"{merges}:1" and "256" in caught.value.expected
    for line in ("a  b", "a b", "#version: 0.2"):
        merges.write_text("\n".join([*lines, line]), encoding="utf-8")
        with pytest.raises(UserError, match="does not fit the vocabulary") as caught:
            import_gpt2(vocab, merges)
        assert caught.value.where == f"{merges}:5"


@pytest.mark.parametrize(
    "change",
    [
        lambda vocab: vocab.pop("a"),
        lambda vocab: vocab.update(a=400),
        lambda vocab: vocab.update(a="64"),
        lambda vocab: vocab.clear(),
    ],
)
def test_import_of_another_vocabulary(change, tmp_path):
    vocab, merges = write_gpt2(tmp_path, SHUFFLED)
    change_json(vocab, change)
    with pytest.raises(UserError, match="256 bytes") as caught:
        import_gpt2(vocab, merges)
    assert caught.value.where == str(vocab)


def test_import_of_a_merge_that_needs_a_later_one(tmp_path):
    vocab, merges = write_gpt2(tmp_path, SHUFFLED)
    change_json(vocab, lambda content: content.update(ab=257, abc=256))
    lines = merges.read_text(encoding="utf-8").splitlines()
    merges.write_text("\n".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match="does not fit the vocabulary") as caught:
        import_gpt2(vocab, merges)
    assert caught.value.where == f"{merges}:1"


def test_import_with_a_hole_in_the_ids(tmp_path):
    vocab, merges = write_gpt2(tmp_path, SHUFFLED)
    change_json(vocab, lambda content: content.update({"<|endoftext|>": 999}))
    with pytest.raises(UserError, match="no merge makes"):
        import_gpt2(vocab, merges)
