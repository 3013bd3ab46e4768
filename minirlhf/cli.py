"""The command line. Each command is a frozen dataclass of settings and a function that takes it.

Flags, their help and their defaults are read off the dataclass by tyro. A command's module is imported only when the
command is used: `minirlhf --help` need not wait for torch.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minirlhf import __version__
from minirlhf.errors import UserError


@dataclass(frozen=True)
class Command:
    """One word of the command line: what it does, `module:Settings`, and the function of that module to call."""

    summary: str
    settings: str
    function: str


COMMANDS = {
    "quickstart": Command(
        "the whole road on the shipped village, in minutes", "stages.quickstart:Quickstart", "run_quickstart"
    ),
    "tokenizer": Command("learn a byte-pair vocabulary from text", "stages.tokenizer:TokenizerStage", "run_tokenizer"),
    "pretrain": Command("teach a new model to continue text", "stages.pretrain:PretrainStage", "run_pretrain"),
    "sft": Command("teach it to answer, by imitation of conversations", "stages.sft:SftStage", "run_sft"),
    "reward": Command("learn a score from pairs of answers", "stages.reward:RewardStage", "run_reward"),
    "reinforce": Command("improve answers with REINFORCE", "stages.reinforce:ReinforceStage", "run_reinforce"),
    "ppo": Command("improve answers with PPO", "stages.ppo:PPOStage", "run_ppo"),
    "grpo": Command("improve answers with GRPO: groups instead of a critic", "stages.grpo:GRPOStage", "run_grpo"),
    "dpo": Command("improve answers straight from pairs, with DPO or IPO", "stages.dpo:DPOStage", "run_dpo"),
    "compare": Command(
        "PPO, GRPO, DPO and REINFORCE side by side on the shipped village", "stages.compare:Compare", "run_compare"
    ),
    "generate": Command("answer prompts, or continue text", "stages.generate:Generate", "run_generate"),
    "chat": Command("talk with a model", "stages.chat:Chat", "run_chat"),
    "evaluate": Command(
        "measure a model on held-out data, or two by a judge", "stages.evaluate:Evaluate", "run_evaluate"
    ),
    "diagnose": Command("read a run's curves and name what is wrong", "stages.inspect:Diagnose", "run_diagnose"),
    "course": Command("assignments: make one, check your work, grade a class", "course.commands:Course", "run_course"),
    "export": Command("write a model in Hugging Face's format", "stages.inspect:Export", "run_export"),
}

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # PyTorch's words for it

WHAT_TO_DO = {
    errno.ENOSPC: "free some room; a run goes on with --resume",
    errno.EACCES: "choose a place you may read and write",
    errno.EPERM: "choose a place you may read and write",
    errno.EROFS: "choose a place you may read and write",
    errno.ENOTDIR: "a part of this path is a file; choose another one",
}

EPILOGUE = """\
minirlhf COMMAND --help lists a command's flags. --debug, anywhere, shows the traceback of an error.

A first road, on the shipped village:
  minirlhf pretrain --context 128 --out runs/base
  minirlhf sft --model runs/base --out runs/sft
  minirlhf reward --model runs/sft --out runs/reward
  minirlhf ppo --model runs/sft --reward runs/reward --out runs/ppo
  minirlhf chat runs/ppo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, or 2 for wrong input, 130 after Ctrl-C, 1 when training broke down."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):  # what models write need not be in the terminal's alphabet
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"minirlhf {__version__}")
        return 0
    try:
        return dispatch(arguments[0], arguments[1:])
    except UserError as error:
        if debug:
            raise
        return _fail(str(error), 2)
    except OSError as error:
        if debug:
            raise
        return _fail(_about_file(error), 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def dispatch(name: str, arguments: Sequence[str]) -> int:
    """Reads the flags of one command and runs it."""
    import tyro

    from minirlhf.parallel.processes import silent

    if name not in COMMANDS:
        raise UserError("there is no such command", found=name, expected=", ".join(COMMANDS), fix="minirlhf --help")
    command = COMMANDS[name]
    module_name, _, class_name = command.settings.partition(":")
    module = importlib.import_module(f"minirlhf.{module_name}")
    with silent(int(os.environ.get("RANK", "0")), errors=True):  # all would say the same
        settings: Any = tyro.cli(
            getattr(module, class_name),
            prog=f"minirlhf {name}",
            args=list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    return run_settings(getattr(module, command.function), settings, name, arguments)


def run_settings(function: Any, settings: Any, name: str, arguments: Sequence[str]) -> int:
    """Calls the command's function and translates how it ended into an exit code."""
    from minirlhf.models.speed import keep_freed_memory
    from minirlhf.objectives.guards import NonFiniteError
    from minirlhf.parallel.processes import LostProcess, joined, started
    from minirlhf.runs.run import Interrupted, RunOptions

    keep_freed_memory()
    run = getattr(settings, "run", None)
    try:
        if started() == 1:
            function(settings)
        elif isinstance(run, RunOptions):
            with joined(run.device, run.shard, run.timeout_seconds) as world:
                function(settings, world)
        else:
            raise UserError(f"{name} runs in one process", found=f"{started()} of them", fix=f"minirlhf {name} …")
    except Interrupted as stopped:
        again = [argument for argument in arguments if argument not in ("--resume", "--overwrite")]
        command = "minirlhf" if started() == 1 else "torchrun … -m minirlhf"
        return _fail(f"{stopped}\ngo on with: {command} {name} {_shown(again)} --resume", 130)
    except LostProcess as lost:
        return _fail(str(lost), 1)
    except NonFiniteError as error:
        if name in ("generate", "chat", "evaluate"):
            return _fail(f"the model broke down: {error}\nits weights are too large; take an earlier checkpoint", 1)
        return _fail(
            f"the training broke down: {error}\ntry a smaller --learning-rate; minirlhf diagnose may know more", 1
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise UserError(
            "there is not enough memory",
            found=str(error).partition("\n")[0][:200],
            fix="a smaller --micro-batch-size, --batch-size, --context or model; what was saved is still there",
        ) from error
    return 0


def overview() -> str:
    """What `minirlhf --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    head = "minirlhf: from raw text to a model tuned on human preference\n\nusage: minirlhf COMMAND [FLAGS]\n"
    return "\n".join([head, *lines, "", EPILOGUE])


def _shown(arguments: Sequence[str]) -> str:
    return " ".join(f'"{argument}"' if " " in argument or not argument else argument for argument in arguments)


def _about_file(error: OSError) -> str:
    what = error.strerror or str(error)
    where = f"\n  {'where:':<12}{error.filename}" if error.filename else ""
    fix = WHAT_TO_DO.get(error.errno or 0, "")
    return f"a file could not be read or written: {what}{where}" + (f"\n  {'what to do:':<12}{fix}" if fix else "")


def _fail(message: str, code: int) -> int:
    if not _said_before(message):
        print(message, file=sys.stderr)
    return code


def _said_before(message: str) -> bool:
    """Has another of several processes said the same?"""
    if "WORLD_SIZE" not in os.environ:
        return False
    from minirlhf.parallel.processes import said_before

    return said_before(message)
