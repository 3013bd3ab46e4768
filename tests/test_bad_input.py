"""A person who gets everything wrong: each mistake ends with an exit code and a message, and leaves nothing behind."""

import builtins
import contextlib
import errno
import gzip
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minirlhf import cli
from minirlhf.models.checkpoint import save_checkpoint
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import Classifier, RewardModel
from minirlhf.runs.files import read_rows
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.tokenizer import byte_tokenizer
from tests.helpers.tiny_road import SHAPE, command, write_data

JUDGES = """
def short(prompts, responses): return [0.0]
def raises(prompts, responses): raise KeyError("weights of the judge")
def nan(prompts, responses): return [float("nan")] * len(responses)
def text(prompts, responses): return ["good"] * len(responses)
def nothing(prompts, responses): return None
def fine(prompts, responses): return [float(len(r)) for r in responses]
number = 3
"""


def make_models(folder: Path) -> None:
    """base and reward with byte tokens, other and other_reward with learnt ones, a classifier; weights at random."""
    letters = byte_tokenizer()
    learnt = train_bpe(["the cat and the hat"], 264)
    for name, tokenizer in (("base", letters), ("other", learnt)):
        config = GPTConfig(tokenizer.vocab_size, context=48, layers=1, heads=2, width=8)
        model = GPT(config, torch_generator(0, name))
        save_checkpoint(folder / name, model, tokenizer)
        reward_name = "reward" if name == "base" else "other_reward"
        save_checkpoint(folder / reward_name, RewardModel.from_trunk(model, torch_generator(0, "head")), tokenizer)
    save_checkpoint(folder / "classifier", Classifier(GPT(config), ["bad", "good"]), tokenizer)


def prepare(folder: Path) -> None:
    """data/, models/, run/ (a finished run of pretrain) and halted/ (one that died before its end)."""
    write_data(folder / "data")
    make_models(folder / "models")
    (folder / "data" / "bad_judges.py").write_text(JUDGES, encoding="utf-8")
    assert cli.main(command("pretrain", folder / "data", folder / "models", folder / "run")) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minirlhf.stages.pretrain.finish", lambda *_: None)
        assert cli.main(command("pretrain", folder / "data", folder / "models", folder / "halted")) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    prepare(folder)
    return folder


@dataclass(frozen=True)
class Bad:
    """A command with {here}, {data}, {models} in its words, what must be said, and what is spoilt beforehand."""

    words: str
    says: tuple[str, ...]
    spoil: Callable[[Path, Path], None] = lambda here, made: None
    code: int = 2
    out: str = "--out {here}/out --device cpu"


def file(name: str, content: str | bytes) -> Callable[[Path, Path], None]:
    """Puts a file of this content beside the run folder to be."""

    def write(here: Path, made: Path) -> None:
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    return write


def rows(name: str, *records: object) -> Callable[[Path, Path], None]:
    return file(name, "".join(json.dumps(record) + "\n" for record in records))


def folder(name: str, **files: str) -> Callable[[Path, Path], None]:
    def make(here: Path, made: Path) -> None:
        (here / name).mkdir()
        for file_name, text in files.items():
            (here / name / file_name).write_text(text, encoding="utf-8")

    return make


def archive(here: Path, made: Path) -> None:
    with zipfile.ZipFile(here / "texts.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("one.txt", "Ada has a hat and Bo has a kite. " * 40)
    content = bytearray((here / "texts.zip").read_bytes())
    content[40:60] = b"\x00" * 20
    (here / "texts.zip").write_bytes(content)


def model(name: str, change: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    """Copies a model to {here}/model and changes something in it."""

    def spoil(here: Path, made: Path) -> None:
        shutil.copytree(made / "models" / name, here / "model")
        change(here / "model")

    return spoil


def weight(value: float, name: str = "final_norm.bias", where: int | slice = 1) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(place / "model.safetensors").items()}
        tensors[name][where] = value
        save_file(tensors, place / "model.safetensors")

    return change


def config(**fields: object) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        content = json.loads((place / "config.json").read_text(encoding="utf-8"))
        content["model"] |= fields
        (place / "config.json").write_text(json.dumps(content), encoding="utf-8")

    return change


def instead(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes()[:size])


def run_folder(
    change: Callable[[Path], object] = lambda place: None, name: str = "run"
) -> Callable[[Path, Path], None]:
    """Copies a run to {here}/out and changes something in it."""

    def spoil(here: Path, made: Path) -> None:
        shutil.copytree(made / name, here / "out")
        change(here / "out")

    return spoil


def line_seven(text: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        lines[6] = text
        (place / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return change


PRETRAIN = " ".join(["pretrain", *SHAPE, "--steps 2"])
TEXT = f"{PRETRAIN} --data {{data}}/text.txt"
AGAIN = "pretrain --data {data}/text.txt --steps 8 --batch-size 2 --dropout 0.1 --seed 5 --quiet " + " ".join(SHAPE)
SFT = "sft --model {models}/base --batch-size 2"
REWARD = "reward --model {models}/base --batch-size 2"
PPO = "ppo --steps 1 --batch-size 4 --minibatches 2 --max-new-tokens 8"
JUDGED = PPO + " --model {models}/base --data {data}/prompts.jsonl"
WRITE = "generate --model {models}/base --max-new-tokens 4"
STAY = ""  # for commands without --out
LATIN, TABLE = "Kätzchen\n".encode("latin-1"), "prompt,completion\nWho?,Bo.\n"
PAIR = {"prompt": "Who?", "chosen": "Bo.", "rejected": "bo"}
CHAT = {"prompt": "Who?", "completion": "Bo."}
LONG = "x" * 60

BAD = {
    # files that cannot be read as text
    "latin-1 as UTF-8": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt", ("a.txt:2", "0xe4", "--encoding"), file("a.txt", b"A\n" + LATIN)
    ),
    "UTF-16 with a mark": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt", ("UTF-16", "--encoding utf-16"), file("a.txt", "Hut".encode("utf-16"))
    ),
    "UTF-16 without one": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt",
        ("a.txt:1", "zero byte", "utf-16-le"),
        file("a.txt", "Hut".encode("utf-16-le")),
    ),
    "UTF-8 as UTF-16": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt --encoding utf-16", ("not valid utf-16", "a.txt:1"), file("a.txt", "Hut")
    ),
    "an encoding nobody knows": Bad(f"{TEXT} --encoding latin-99", ("unknown encoding", "latin-99")),
    "an empty file": Bad(f"{PRETRAIN} --data {{here}}/a.txt", ("nothing in it", "a.txt", "empty"), file("a.txt", "")),
    "only blank lines": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt", ("nothing in it", "empty document"), file("a.txt", "\n \n\t\n")
    ),
    "an empty file of records": Bad(
        f"{SFT} --data {{here}}/a.jsonl", ("nothing in it", "a.jsonl"), file("a.jsonl", "\n\n")
    ),
    "no such file": Bad(f"{REWARD} --data {{here}}/missing.jsonl", ("no such file", "missing.jsonl", "spelling")),
    "a folder without texts": Bad(
        f"{PRETRAIN} --data {{here}}/texts",
        ("no data files", "photo.png", ".jsonl"),
        folder("texts", **{"photo.png": "x"}),
    ),
    "an empty folder": Bad(f"{PRETRAIN} --data {{here}}/texts", ("no data files", "nothing"), folder("texts")),
    "a gzip cut short": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt.gz",
        ("cut short", "a.txt.gz", "gzip -t"),
        file("a.txt.gz", gzip.compress(b"Ada has a hat. " * 99, mtime=0)[:-12]),
    ),
    "a gzip in name only": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt.gz", ("damaged", "a.txt.gz"), file("a.txt.gz", "Ada has a hat.")
    ),
    "a damaged zip": Bad(f"{PRETRAIN} --data {{here}}/texts.zip", ("damaged", "texts.zip", "unzip -t"), archive),
    "no zip at all": Bad(f"{PRETRAIN} --data {{here}}/a.zip", ("damaged", "a.zip"), file("a.zip", "PK, or not")),
    "bytes of a program": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt", ("not text", "a.txt:1"), file("a.txt", b"\x7fELF\x02\x01\x01\0\0")
    ),
    "weights as text": Bad(
        f"{PRETRAIN} --data {{models}}/base/model.safetensors", (".safetensors files are not read", "model.safetensors")
    ),
    "a PDF named .txt": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt", ("not a text file", "%PDF"), file("a.txt", "%PDF-1.7 x")
    ),
    # records of another form
    "a malformed line": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("malformed", "a.jsonl:2", "column"),
        file("a.jsonl", json.dumps(CHAT) + '\n{"prompt": "Who?",\n'),
    ),
    "a field is missing": Bad(
        f"{REWARD} --data {{here}}/a.jsonl",
        ("no rejected answer", "a.jsonl:2", "--field rejected"),
        rows("a.jsonl", PAIR, {"prompt": "a", "chosen": "b"}),
    ),
    "another field is missing": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("'prompt'", "a.jsonl:2", "complete this record"),
        rows("a.jsonl", CHAT, {"completion": "b"}),
    ),
    "a number for a text": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("not a text", 'a.jsonl:1, field "completion"', "a number"),
        rows("a.jsonl", CHAT | {"completion": 3}),
    ),
    "null for a text": Bad(
        f"{REWARD} --data {{here}}/a.jsonl",
        ("not a text", 'field "chosen"', "null"),
        rows("a.jsonl", PAIR | {"chosen": None}),
    ),
    "a shape nobody knows": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("no shape that fits", "frage, antwort", "--field prompt=frage"),
        rows("a.jsonl", {"frage": "Wer?", "antwort": "Bo"}),
    ),
    "an unknown role": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("unknown role", "'robot'"),
        rows("a.jsonl", {"messages": [{"role": "robot", "content": "x"}]}),
    ),
    "a list of numbers": Bad(f"{SFT} --data {{here}}/a.json", ("no records", "a.json:1"), file("a.json", "[1, 2]")),
    "a JSON list cut short": Bad(
        f"{SFT} --data {{here}}/a.json",
        ("malformed", "cut short", "a.json:1"),
        file("a.json", json.dumps([CHAT, CHAT])[:-1]),
    ),
    "a CSV without a header": Bad(
        f"{SFT} --data {{here}}/a.csv",
        ("no shape that fits", "Who?, Bo.", "the first line must name the columns"),
        file("a.csv", "Who?,Bo.\nWhat?,A hat.\n"),
    ),
    "a CSV without the column": Bad(
        f"{SFT} --data {{here}}/a.csv --field completion=answer",
        ("no field 'answer'", "prompt, completion"),
        file("a.csv", TABLE),
    ),
    "a ragged CSV row": Bad(
        f"{SFT} --data {{here}}/a.csv", ("a.csv:3", "3 cells", "quoted"), file("a.csv", TABLE + "Who, then?,Bo.\n")
    ),
    "a CSV that is a TSV": Bad(
        f"{SFT} --data {{here}}/a.csv",
        ("separated by something else", "a.csv:1"),
        file("a.csv", TABLE.replace(",", "\t")),
    ),
    "a field nobody has": Bad(f"{TEXT} --field words=text", ("no field 'words'", "--field")),
    "fields of plain text": Bad(
        f"{TEXT} --field text=review",
        ("no fields to map in plain text", "--field text=review", "leave --field out"),
    ),
    "pairs that are all the same": Bad(
        f"{REWARD} --data {{here}}/a.jsonl",
        ("nothing in it", "identical answers: 2"),
        rows("a.jsonl", *[PAIR | {"rejected": "Bo. "}] * 2),
    ),
    "pairs the same once cut": Bad(
        f"{REWARD} --data {{here}}/a.jsonl",
        ("nothing fits", "identical after truncation", "--context"),
        rows("a.jsonl", *({"prompt": p, "chosen": LONG + "a", "rejected": LONG + "b"} for p in "pq")),
    ),
    "conversations all too long": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("nothing fits", "longer than the context", "a.jsonl:"),
        rows("a.jsonl", {"prompt": "p" + LONG, "completion": "a"}, {"prompt": "q" + LONG, "completion": "b"}),
    ),
    "one prompt to split": Bad(
        f"{SFT} --data {{here}}/a.jsonl",
        ("only one prompt", "at least 2", "--held-out-fraction 0"),
        rows("a.jsonl", CHAT),
    ),
    "a text shorter than a window": Bad(
        f"{PRETRAIN} --data {{here}}/a.txt",
        ("shorter than one window", "9 tokens", "--context"),
        file("a.txt", "Ada, a hat"),
    ),
    "a prompt longer than the context": Bad(
        f"{PPO} --model {{models}}/base --reward {{models}}/reward --data {{here}}/a.txt",
        ("nothing fits", "prompt longer than 40 tokens", "a.txt:1"),
        file("a.txt", LONG),
    ),
    # models
    "NaN in the weights": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("NaN or infinity", 'tensor "final_norm.bias"', "1 of 8"),
        model("base", weight(float("nan"))),
    ),
    "infinity in the weights": Bad(
        f"{WRITE.replace('{models}/base', '{here}/model')} --prompt hi",
        ("NaN or infinity", "final_norm.bias"),
        model("base", weight(float("inf"))),
        out=STAY,
    ),
    "weights cut short": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("not a whole safetensors", "copy it again"),
        model("base", cut("model.safetensors", 999)),
    ),
    "no weights": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("no checkpoint", "model.safetensors"),
        model("base", lambda place: (place / "model.safetensors").unlink()),
    ),
    "no config.json": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("missing", "config.json"),
        model("base", lambda place: (place / "config.json").unlink()),
    ),
    "no tokenizer.json": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("no such file", "tokenizer.json"),
        model("base", lambda place: (place / "tokenizer.json").unlink()),
    ),
    "a config.json that is no JSON": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("not JSON", "config.json", "line 1"),
        model("base", instead("config.json", "{kind: gpt}")),
    ),
    "a field the model does not have": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("unknown", 'field "model.n_layer"', "layers"),
        model("base", config(n_layer=3)),
    ),
    "a shape that cannot be": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("multiple", "config.json", "heads = 3"),
        model("base", config(heads=3)),
    ),
    "somebody else's model": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("Hugging Face", "import_hugging_face"),
        model("base", instead("config.json", '{"model_type": "llama"}')),
    ),
    "somebody else's tokenizer": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("not a tokenizer of minirlhf", "Hugging Face"),
        model("base", instead("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE"}}')),
    ),
    "somebody else's tokenizer for a new model": Bad(
        f"{TEXT} --tokenizer {{here}}/t.json",
        ("not a tokenizer of minirlhf", "minirlhf tokenizer"),
        file("t.json", '{"version": "1.0", "model": {"type": "BPE"}}'),
    ),
    "the tokenizer of another model": Bad(
        "sft --model {here}/model --data {data}/chats.jsonl",
        ("not this model's", "264 tokens", "261 tokens"),
        lambda here, made: (
            shutil.copytree(made / "models/base", here / "model"),
            shutil.copy(made / "models/other/tokenizer.json", here / "model"),
        ),
    ),
    "a reward model to improve": Bad(
        f"{PPO} --model {{models}}/reward --reward {{models}}/reward --data {{data}}/prompts.jsonl",
        ("language model", "RewardModel", "sft"),
    ),
    "a classifier to talk with": Bad("chat {models}/classifier", ("language model", "Classifier"), out=STAY),
    "a language model as judge": Bad(
        f"{JUDGED} --reward {{models}}/base", ("gives no scores", "GPT", "minirlhf reward")
    ),
    "a judge with other tokens": Bad(
        f"{JUDGED} --reward {{models}}/other_reward", ("other tokens", "264 ids", "261 ids")
    ),
    "a judge that is not there": Bad(f"{JUDGED} --reward {{here}}/nowhere", ("no such folder", "nowhere")),
    "a judge by a file's name": Bad(f"{JUDGED} --reward bad_judges.py:fine", ("module:function", "leave out .py")),
    "two tokenizers": Bad(
        f"{TEXT} --model {{models}}/base --tokenizer bytes", ("brings its own tokenizer", "leave out")
    ),
    # the folder to write to
    "a folder of something else": Bad(
        TEXT, ("not a run of minirlhf", "thesis.tex", "another --out"), folder("out", **{"thesis.tex": "years"})
    ),
    "a folder of something else, with --overwrite": Bad(
        f"{TEXT} --overwrite", ("not a run of minirlhf", "thesis.tex"), folder("out", **{"thesis.tex": "years"})
    ),
    "a file in its place": Bad(TEXT, ("is a file", "another --out"), file("out", "years")),
    "a folder below a file": Bad(
        TEXT,
        ("Not a directory", "thesis.tex", "is a file"),
        file("thesis.tex", "years"),
        out="--out {here}/thesis.tex/out",
    ),
    "a finished run": Bad(AGAIN, ("already holds a run", "--overwrite", "--resume"), run_folder()),
    "resumed with another rate": Bad(
        f"{AGAIN} --resume --learning-rate 0.5", ("other settings", "learning_rate was 0.005, is now 0.5"), run_folder()
    ),
    "resumed by another command": Bad(
        f"{SFT} --data {{data}}/chats.jsonl --resume", ("another kind of run", "pretrain", "sft"), run_folder()
    ),
    "--resume and --overwrite": Bad(f"{AGAIN} --resume --overwrite", ("contradict", "one of them"), run_folder()),
    "resumed with a damaged checkpoint": Bad(
        f"{AGAIN} --resume",
        ("not JSON", "training_state.json"),
        run_folder(instead("checkpoint/training_state.json", "{")),
    ),
    "resumed without its optimizer": Bad(
        f"{AGAIN} --resume",
        ("optimizer", "training_state.safetensors"),
        run_folder(lambda place: (place / "checkpoint/training_state.safetensors").unlink(), "halted"),
    ),
    "resumed with half an optimizer": Bad(
        f"{AGAIN} --resume",
        ("not a whole safetensors", "training_state.safetensors"),
        run_folder(cut("checkpoint/training_state.safetensors", 99), "halted"),
    ),
    "resumed with another optimizer": Bad(
        f"{AGAIN} --resume",
        ("optimizer state does not fit", "first.blocks.0"),
        run_folder(
            lambda place: save_file({"optimizer.x": torch.ones(1)}, place / "checkpoint/training_state.safetensors"),
            "halted",
        ),
    ),
    "resumed from no step": Bad(
        f"{AGAIN} --resume",
        ("step", "training_state.json"),
        run_folder(instead("checkpoint/training_state.json", '{"finished": false}'), "halted"),
    ),
    "resumed with damaged metrics": Bad(
        f"{AGAIN} --resume",
        ("metrics.jsonl:7", "not a JSON object", "repair or delete"),
        run_folder(line_seven("{oops")),
    ),
    "quickstart among other things": Bad(
        "quickstart", ("something else", "--out"), folder("out", **{"thesis.tex": "years"})
    ),
    "quickstart of another scale": Bad(
        "quickstart --resume",
        ("other settings", "smoke"),
        folder("out", **{"quickstart.json": '{"scale": "smoke", "seed": 0}'}),
    ),
    "a vocabulary where one is": Bad(
        "tokenizer --data {data}/text.txt",
        ("already something here", "--overwrite"),
        folder("out", **{"tokenizer.json": "{}"}),
        out="--out {here}/out",
    ),
    "answers into a file that is there": Bad(
        f"{WRITE} --prompt hi", ("already something here", "--overwrite"), file("out", "years"), out="--out {here}/out"
    ),
    "a result into a file that is there": Bad(
        "evaluate --model {models}/base --data {data}/text.txt",
        ("already something here", "--overwrite"),
        file("out", "years"),
        out="--out {here}/out",
    ),
    "an export where something is": Bad(
        "export {models}/base",
        ("already something here", "--overwrite"),
        folder("out", **{"thesis.tex": "years"}),
        out="--out {here}/out",
    ),
    "an export of a reward model": Bad(
        "export {models}/reward", ("language model", "RewardModel"), out="--out {here}/out"
    ),
    # commands and flags
    "no such command": Bad("pretrian", ("no such command", "pretrian", "pretrain")),
    "no such flag": Bad(f"{TEXT} --stepps 3", ("--stepps",)),
    "a flag left out": Bad("sft --data {data}/chats.jsonl", ("--model",)),
    "a word for a number": Bad(f"{TEXT} --batch-size many", ("many", "batch-size")),
    "a device nobody makes": Bad(f"{TEXT} --device abacus", ("abacus", "cuda"), out="--out {here}/out"),
    "steps below zero": Bad(f"{TEXT} --steps -3", ("steps is out of range", "--steps", "-3")),
    "no epochs": Bad(
        f"{SFT} --data {{data}}/chats.jsonl --epochs 0", ("epochs is out of range", "--epochs", "above 0")
    ),
    "no part of an epoch": Bad(f"{SFT} --data {{data}}/chats.jsonl --epochs nan", ("epochs is out of range", "nan")),
    "a width for no number of heads": Bad(f"{TEXT} --width 9", ("multiple", "width = 9", "for instance")),
    "no context": Bad(f"{TEXT} --context 0", ("context must be at least 1", "context = 0")),
    "a context of one token": Bad(f"{TEXT} --context 1", ("no room", "context = 1")),
    "no heads of keys": Bad(f"{TEXT} --kv-heads 0", ("kv_heads must be at least 1", "kv_heads = 0")),
    "an endless learning rate": Bad(f"{TEXT} --learning-rate inf", ("learning_rate is out of range", "inf")),
    "a folder without a name": Bad("chat .", ("no checkpoint here", "model.safetensors"), out=STAY),
    "a base of zero": Bad(f"{TEXT} --positions rope --rope-base 0", ("rope_base", "0")),
    "a norm that divides by nothing": Bad(f"{TEXT} --norm-eps -1", ("norm_eps", "-1")),
    "a vocabulary below the bytes": Bad(
        "tokenizer --data {data}/text.txt --vocab-size 99", ("vocab", "99"), out="--out {here}/out"
    ),
    "everything held out": Bad(f"{TEXT} --held-out-fraction 1", ("held_out_fraction", "--held-out-fraction", "1.0")),
    "less than nothing held out": Bad(
        f"{SFT} --data {{data}}/chats.jsonl --held-out-fraction -0.5", ("held_out_fraction", "-0.5")
    ),
    "no window to evaluate": Bad(f"{TEXT} --eval-windows 0", ("eval_windows", "--eval-windows", "at least 1")),
    "an evaluation every zero steps": Bad(f"{TEXT} --eval-every 0", ("eval_every", "at least 1")),
    "a log every minus one step": Bad(f"{TEXT} --log-every -1", ("log_every", "at least 1")),
    "a checkpoint every NaN seconds": Bad(f"{TEXT} --save-every-seconds nan", ("save_every_seconds", "nan")),
    "a temperature of zero": Bad(f"{WRITE} --prompt hi --temperature 0", ("temperature", "greedy"), out=STAY),
    "a probability of two": Bad(f"{WRITE} --prompt hi --top-p 2", ("top_p", "(0, 1]", "2.0"), out=STAY),
    "a clip range of five": Bad(
        f"{JUDGED} --reward bad_judges:fine --clip-range 5",
        ("clip_range is out of range", "--clip-range", "above 0 and below 1"),
    ),
    "more minibatches than answers": Bad(
        f"{JUDGED} --reward bad_judges:fine --minibatches 9", ("minibatches", "at least 1 and at most 4")
    ),
    "no answers": Bad(f"{WRITE} --prompt hi --samples 0", ("samples", "at least 1"), out=STAY),
    "answers none at a time": Bad(f"{WRITE} --prompt hi --batch-size 0", ("batch_size", "at least 1"), out=STAY),
    "no prompts": Bad(
        "evaluate --model {models}/base --data {data}/prompts.jsonl --reward bad_judges:fine --prompts 0",
        ("prompts", "at least 1"),
        out=STAY,
    ),
    "no prompt": Bad(WRITE, ("nothing to answer", "--prompt"), out=STAY),
    "a prompt that fills the context": Bad(
        f"{WRITE} --prompt {LONG}", ("fills", "prompt 1", "fewer than 48"), out=STAY
    ),
    "weights that are too large": Bad(
        f"{WRITE.replace('{models}/base', '{here}/model')} --prompt hi",
        ("the model broke down", "not finite", "earlier checkpoint"),
        model("base", weight(3e38, "final_norm.weight", slice(None))),
        code=1,
        out=STAY,
    ),
    # judges
    "a judge's module is missing": Bad(
        f"{JUDGED} --reward no_such_judge:score", ("not found", "no_such_judge", "current folder")
    ),
    "a judge's function is missing": Bad(
        f"{JUDGED} --reward bad_judges:kind", ("no function kind", "functions: ", "short")
    ),
    "a judge that cannot be called": Bad(f"{JUDGED} --reward bad_judges:number", ("no function number",)),
    "a judge with a slip in it": Bad(
        f"{JUDGED} --reward slip_judge:score",
        ("could not be imported", "SyntaxError"),
        file("slip_judge.py", "def score(prompts:\n"),
    ),
    "a judge that raises": Bad(
        f"{JUDGED} --reward bad_judges:raises", ("bad_judges:raises raised KeyError", "weights of the judge", "--debug")
    ),
    "a judge with too few scores": Bad(
        f"{JUDGED} --reward bad_judges:short", ("wrong number of scores", "1 scores for 4 responses")
    ),
    "a judge that says NaN": Bad(f"{JUDGED} --reward bad_judges:nan", ("not finite", "item 0", "nan")),
    "a judge that says good": Bad(f"{JUDGED} --reward bad_judges:text", ("not a number", "'good'")),
    "a judge that says nothing": Bad(f"{JUDGED} --reward bad_judges:nothing", ("did not return a list", "NoneType")),
    "the village's judge elsewhere": Bad(
        f"{JUDGED} --reward {{models}}/reward --true-reward minirlhf.data.true_reward:true_reward",
        ("no known true reward", "What has", "prompts_train.jsonl"),
    ),
    "two models without a judge": Bad(
        "evaluate --model {models}/base --against {models}/base", ("need a judge", "--reward"), out=STAY
    ),
    "a classifier to evaluate": Bad(
        "evaluate --model {models}/classifier", ("cannot be evaluated", "Classifier", "pretrain"), out=STAY
    ),
    # diagnosis
    "no metrics to read": Bad("diagnose {here}", ("no metrics", "metrics.jsonl"), out=STAY),
    "no folder to read": Bad("diagnose {here}/nowhere", ("no metrics", "nowhere"), out=STAY),
    "metrics damaged in the middle": Bad(
        "diagnose {here}/out", ("metrics.jsonl:7", "not JSON", "{oops"), run_folder(line_seven("{oops")), out=STAY
    ),
    "a metric that is a word": Bad(
        "diagnose {here}/out",
        ("metrics.jsonl:7", 'field "loss"', "'low'"),
        run_folder(line_seven('{"step": 7, "loss": "low"}')),
        out=STAY,
    ),
}


def everything(place: Path) -> dict[str, bytes | None]:
    """Every path below with its content; None for a folder."""
    paths = (path for path in place.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in paths}


def spoken(words: list[str], capsys) -> tuple[int, str]:
    """The exit code and what went to stderr, flags that cannot be read included."""
    capsys.readouterr()
    try:
        code = cli.main(words)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, capsys.readouterr().err


def words_of(bad: Bad, here: Path, made: Path) -> list[str]:
    places = {"here": here, "data": made / "data", "models": made / "models"}
    return [word.format(**places) for word in f"{bad.words} {bad.out}".split()]


@pytest.fixture
def in_data(made, tmp_path, monkeypatch):
    """Reward functions are found in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(made / "data")
    yield
    for name in ("bad_judges", "slip_judge"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_explained_and_nothing_is_left_behind(case, made, tmp_path, capsys, in_data):
    bad = BAD[case]
    bad.spoil(tmp_path, made)
    before = everything(tmp_path)
    code, err = spoken(words_of(bad, tmp_path, made), capsys)
    assert code == bad.code, err
    for expected in bad.says:
        assert expected in err
    assert "Traceback" not in err
    assert len(err.splitlines()) > 1, "a message says more than that something is wrong"
    assert everything(tmp_path) == before


def test_a_device_that_is_not_there(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = command("pretrain", made / "data", made / "models", tmp_path / "out")
    words[words.index("cpu")] = "cuda"
    code, err = spoken(words, capsys)
    assert code == 2
    assert "'cuda' is not available" in err
    assert "leave --device out" in err
    assert not (tmp_path / "out").exists()


# -- disks --------------------------------------------------------------------------------------------------------


class FullDisk:
    """Takes half of what is written to files of this name from the n-th time on, and no more; says so as disks do."""

    def __init__(self, monkeypatch, name: str, at: int):
        self.left = at
        monkeypatch.setattr(Path, "open", self.opening(Path.open, name))
        monkeypatch.setattr(builtins, "open", self.opening(open, name))

    def opening(self, opener, name):
        def open_it(path, mode="r", *arguments, **keywords):
            stream = opener(path, mode, *arguments, **keywords)
            if "r" in mode or not str(path).endswith(name):
                return stream
            self.left -= 1
            if self.left >= 0:
                return stream
            whole = stream.write

            def write(content):
                whole(content[: len(content) // 2])
                stream.flush()
                raise OSError(errno.ENOSPC, "No space left on device")

            wrapped = stream
            with contextlib.suppress(AttributeError):
                wrapped.write = write
                return wrapped
            return Thin(stream, write)

        return open_it


class Thin:
    """A binary file with another write."""

    def __init__(self, stream, write):
        self.stream, self.write = stream, write

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize(
    ("name", "at"),
    [("model.safetensors", 2), ("metrics.jsonl", 3), ("samples.jsonl", 5), ("config.json.unfinished", 0)],
)
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(name, at, made, tmp_path, capsys, monkeypatch):
    words = [*command("pretrain", made / "data", made / "models", tmp_path / "out"), "--save-every-seconds", "0"]
    with monkeypatch.context() as patch:
        FullDisk(patch, name, at)
        code, err = spoken(words, capsys)
    assert code == 2
    assert "No space left on device" in err
    assert "what to do:" in err
    assert str(tmp_path / "out") in err
    left = {path.name for path in tmp_path.rglob("*")}
    assert not [path for path in left if "unfinished" in path or "writing" in path or "previous" in path]
    assert cli.main([*words, "--resume"]) == 0
    finished = [
        [{k: v for k, v in row.items() if "second" not in k} for row in read_rows(run / "metrics.jsonl")]
        for run in (tmp_path / "out", made / "run")
    ]
    assert finished[0] == finished[1]


OUTPUTS = {
    "pretrain": f"{TEXT} --out {{here}}/out",
    "tokenizer": "tokenizer --data {data}/text.txt --vocab-size 264 --out {here}/out",
    "generate": f"{WRITE} --prompt hi --out {{here}}/out/answers.jsonl",
    "evaluate": "evaluate --model {models}/base --data {data}/text.txt --out {here}/out/result.json",
    "export": "export {models}/base --out {here}/out",
    "quickstart": "quickstart --scale smoke --out {here}/out",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_may_not_be_written_to(name, made, tmp_path, capsys, monkeypatch):
    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # a test may run as root, who may do anything
        patch.setattr(Path, "mkdir", forbidden)
        code, err = spoken(words_of(Bad(OUTPUTS[name], (), out=STAY), tmp_path, made), capsys)
    assert code == 2, err
    assert "Permission denied" in err
    assert str(tmp_path) in err
    assert "what to do:" in err
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("tokenizer", ".part"),
        ("generate", "answers.jsonl.unfinished"),
        ("evaluate", "result.json.unfinished"),
        ("export", "model.safetensors"),
    ],
)
def test_a_full_disk_leaves_no_half_result(name, written, made, tmp_path, capsys, monkeypatch):
    words = words_of(Bad(OUTPUTS[name], (), out=STAY), tmp_path, made)
    with monkeypatch.context() as patch:
        FullDisk(patch, written, 0)
        code, err = spoken(words, capsys)
    assert code == 2, err
    assert "No space left on device" in err
    assert str(tmp_path / "out") in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cli.main(words) == 0  # nothing in the way


def test_not_enough_memory_is_no_traceback(made, tmp_path, capsys, monkeypatch):
    def no_room(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 bytes.")

    monkeypatch.setattr("minirlhf.stages.pretrain.train_pretrain", no_room)
    code, err = spoken(command("pretrain", made / "data", made / "models", tmp_path / "out"), capsys)
    assert code == 2
    assert "not enough memory" in err
    assert "--micro-batch-size" in err


# -- changed since, and said while chatting -------------------------------------------------------------------------


def test_a_judge_that_fails_half_way_keeps_the_run(made, tmp_path, capsys, in_data, monkeypatch):
    calls = "calls = []\ndef score(prompts, responses):\n    calls.append(1)\n"
    calls += "    return [0.0] * (len(responses) if len(calls) < 4 else 1)\n"
    (tmp_path / "slip_judge.py").write_text(calls, encoding="utf-8")
    words = words_of(Bad(f"{JUDGED} --reward slip_judge:score --save-every-seconds 0", ()), tmp_path, made)
    words[words.index("--steps") + 1] = "5"
    code, err = spoken(words, capsys)
    assert code == 2
    assert "wrong number of scores" in err
    done = len(read_rows(tmp_path / "out" / "metrics.jsonl"))
    assert done == 2
    sys.modules.pop("slip_judge")
    (tmp_path / "slip_judge.py").write_text(JUDGES.replace("fine", "score"), encoding="utf-8")
    assert cli.main([*words, "--resume"]) == 0
    assert len(read_rows(tmp_path / "out" / "metrics.jsonl")) == 5


def test_a_line_that_fills_the_context_is_refused_and_the_chat_goes_on(made, capsys, monkeypatch):
    lines = iter([LONG, "hi", "/exit"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(lines))
    assert cli.main(["chat", str(made / "models" / "base"), "--max-new-tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert "do not fit the model's context" in shown
    assert "62 tokens" in shown
    assert shown.count("model: ") == 1


@pytest.mark.parametrize("out", [".", "../here"])
def test_the_current_folder_is_not_moved_aside_under_ones_feet(out, made, tmp_path, capsys, monkeypatch):
    shutil.copytree(made / "run", tmp_path / "here")
    before = everything(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    words = command("pretrain", made / "data", made / "models", Path(out))
    code, err = spoken([*words, "--overwrite"], capsys)
    assert code == 2
    assert "current folder" in err
    assert "cd .. first" in err
    assert everything(tmp_path) == before


def test_one_prompt_has_a_score_without_an_interval(made, capsys, in_data):
    words = "evaluate --model {models}/base --data {data}/prompts.jsonl --reward bad_judges:fine --prompts 1"
    assert cli.main(words_of(Bad(f"{words} --max-new-tokens 4", (), out=STAY), made, made)) == 0
    assert "(nan to nan)" in capsys.readouterr().out


def test_ctrl_c_while_reading_is_130_and_leaves_nothing(made, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("minirlhf.stages.pretrain.read_documents", stopped)
    code, err = spoken(command("pretrain", made / "data", made / "models", tmp_path / "out"), capsys)
    assert (code, err) == (130, "stopped\n")
    assert everything(tmp_path) == {}
