"""The commands `diagnose` and `export`: what a run says about itself, and a model in another format."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from minirlhf.evaluation.diagnose import diagnose
from minirlhf.evaluation.findings import Finding
from minirlhf.models.hugging_face import export_hugging_face
from minirlhf.stages.common import check_free, load_gpt, make_room, pick


@dataclass(frozen=True)
class Diagnose:
    """Read a run's curves and name what is wrong, worst first."""

    run: tyro.conf.Positional[Path]  # a run folder


def run_diagnose(stage: Diagnose) -> list[Finding]:
    """Prints and returns the findings."""
    findings = diagnose(stage.run)
    for finding in findings:
        print(f"{finding}\n")
    if not findings:
        print("Nothing looks wrong.")
    return findings


@dataclass(frozen=True)
class Export:
    """Write a language model in Hugging Face's format: GPT-2's shape or Llama's, as the model's settings allow."""

    model: tyro.conf.Positional[Path]  # a run folder or a checkpoint
    out: Path  # the folder to make
    overwrite: bool = False  # if the folder exists, move it aside to NAME.before-1, -2, ... first


def run_export(stage: Export) -> Path:
    """Writes the files and returns their folder."""
    check_free(stage.out, stage.overwrite)
    model, tokenizer = load_gpt(stage.model, pick("cpu"))
    make_room(stage.out)
    export_hugging_face(model, tokenizer, stage.out)
    print(f"exported  {stage.out}")
    return stage.out
