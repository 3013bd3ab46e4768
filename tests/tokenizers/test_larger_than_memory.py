"""The command `tokenizer` reads a file piece by piece: the same vocabulary, in less memory than the file takes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minirlhf
from minirlhf.data.formats import read_documents, stream_documents
from minirlhf.data.reports import Tally
from minirlhf.tokenizers.bpe import count_pre_tokens
from minirlhf.tokenizers.storage import load_tokenizer

texts = st.text("ab 1.'汉\n\r", max_size=60) | st.lists(
    st.sampled_from(["a b\n", "\n", "  \n", "<|endoftext|>\n", "ab"])
)


@given(texts.map("".join), st.integers(1, 9))
def test_portions_of_documents_hold_the_same_pre_tokens(tmp_path_factory, text, longest):
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_text(text or "a", encoding="utf-8", newline="")
    tally = Tally()
    try:
        whole, report = read_documents(path)
    except Exception as error:
        with pytest.raises(type(error)):
            list(stream_documents(path, tally, longest=longest))
        return
    found = list(stream_documents(path, tally, longest=longest))
    assert tally.report(report.kept) == report
    assert "".join(part.text for part in found) == "".join(document.text for document in whole)
    assert dict.fromkeys(part.source for part in found) == dict.fromkeys(document.source for document in whole)
    for pattern in ("gpt2", "gpt4"):
        counts = [count_pre_tokens([each.text for each in some], pattern) for some in (found, whole)]
        assert counts[0] == counts[1]


LIMITED = """
import resource, sys
import minirlhf.stages.tokenizer
from minirlhf.cli import main
from minirlhf.data.formats import read_documents
how, text, out = sys.argv[1:]
command = ["tokenizer", "--vocab-size", "300", "--processes", "1", "--out"]
main([*command, out + "/small", "--data", __file__])  # imports and makes what is needed for any text
used = next(line for line in open("/proc/self/status", encoding="utf-8") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (int(used.split()[1]) * 1024 + 2**24,) * 2)
if how == "streamed":
    sys.exit(main([*command, out + "/big", "--data", text]))
try:
    read_documents(text)
except MemoryError:
    sys.exit("does not fit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's data this way")
def test_a_file_larger_than_the_memory(tmp_path):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 7))) for _ in range(500)]
    lines = [" ".join(rng.choices(words, k=12)) + "\n" for _ in range(1000)]
    with open(tmp_path / "big.txt", "w", encoding="utf-8") as file:
        for _ in range(300):  # 15 MB in 300,000 lines; 17 MB beyond what is in use may be held
            file.writelines(lines)
    (tmp_path / "limited.txt").write_text(LIMITED, encoding="utf-8")

    def run(how):
        call = [sys.executable, "limited.txt", how, "big.txt", how]
        environment = os.environ | {"PYTHONPATH": str(Path(minirlhf.__file__).parents[1])}
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("whole").stderr.strip() == "does not fit"
    streamed = run("streamed")
    assert streamed.returncode == 0, streamed.stdout + streamed.stderr
    assert load_tokenizer(tmp_path / "streamed" / "big" / "tokenizer.json").vocab_size == 300
