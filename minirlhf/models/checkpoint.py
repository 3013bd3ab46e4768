"""Saving a model with its tokenizer, and loading it back: safetensors and JSON, nothing that could run as code."""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.models.checkpoint_files import (
    check_tensors,
    current_folder,
    read_json,
    read_tensors,
    replace_folder,
    write_json,
    write_tensors,
)
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import Classifier, RewardModel, ValueModel
from minirlhf.nn.lean_attention import lean_attend
from minirlhf.tokenizers.storage import load_tokenizer, save_tokenizer
from minirlhf.tokenizers.tokenizer import Tokenizer

Model = GPT | RewardModel | ValueModel | Classifier
KINDS = {GPT: "gpt", RewardModel: "reward_model", ValueModel: "value_model", Classifier: "classifier"}
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
TRAINING_TENSORS, TRAINING_STATE = "training_state.safetensors", "training_state.json"
TRAINING_SHARDS = "training_shards"
FILES = frozenset((WEIGHTS, CONFIG, TOKENIZER, TRAINING_TENSORS, TRAINING_STATE, TRAINING_SHARDS))


def save_checkpoint(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    *,
    training_tensors: Mapping[str, Tensor] | None = None,
    training_state: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    training_shards: Path | None = None,
) -> None:
    """Replace what `folder` held by this model, its tokenizer and, when given, what training needs to go on.

    weights stand in for a model whose own are cut up among processes, and training_shards, a folder that is moved into
    the checkpoint, for its training_tensors.
    All files change together: killed at any moment, either the old checkpoint or the new one can be loaded.
    Raises UserError when the tokenizer is not the model's or the folder cannot be written; the old one then stays.
    """
    config = gpt_of(model).config
    check_vocabulary(tokenizer, config, str(folder))
    described: dict[str, Any] = {"kind": kind_of(model), "model": dataclasses.asdict(config)}
    if isinstance(model, Classifier):
        described["classes"] = list(model.classes)

    def write_files(part: Path) -> None:
        write_json(part / CONFIG, described)
        save_tokenizer(tokenizer, part / TOKENIZER)
        write_tensors(part / WEIGHTS, model.state_dict() if weights is None else weights)
        if training_tensors:
            write_tensors(part / TRAINING_TENSORS, training_tensors)
        if training_shards is not None:
            os.replace(training_shards, part / TRAINING_SHARDS)
        if training_state is not None:
            write_json(part / TRAINING_STATE, training_state)

    replace_folder(Path(folder), write_files, FILES)


def load_model(folder: str | Path) -> tuple[Model, Tokenizer]:
    """The model and tokenizer saved in a checkpoint folder, or in a run folder's checkpoint/. On the CPU, float32.

    Raises UserError, naming file and tensor or field, for anything that is missing, cut off, not finite, or foreign.
    """
    place = find_checkpoint(Path(folder))
    described = read_json(place / CONFIG)
    config = read_config(place / CONFIG, described)
    tokenizer = load_tokenizer(place / TOKENIZER)
    check_vocabulary(tokenizer, config, str(place / TOKENIZER))
    model = build(place / CONFIG, described, config)
    tensors = read_tensors(place / WEIGHTS)
    check_tensors(place / WEIGHTS, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return model, tokenizer


def load_training_state(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What save_checkpoint was given as training_tensors ({} when none) and training_state."""
    place = find_checkpoint(Path(folder))
    if not (place / TRAINING_STATE).is_file():
        raise UserError(
            "the checkpoint holds a model but not the state of its training",
            where=str(place / TRAINING_STATE),
            fix="start a new run from this model with --model",
        )
    state = read_json(place / TRAINING_STATE)
    tensors = read_tensors(place / TRAINING_TENSORS) if (place / TRAINING_TENSORS).is_file() else {}
    return tensors, state


def checkpoint_exists(folder: str | Path) -> bool:
    """Has a checkpoint ever been saved in this very folder? True also between the two renames of a killed save."""
    return current_folder(Path(folder)) is not None


def find_checkpoint(folder: Path) -> Path:
    """The folder that holds the files: a run's checkpoint/, `folder` itself, or what a killed save moved aside."""
    for place in (current_folder(folder / "checkpoint"), current_folder(folder)):
        if place is not None and (place / WEIGHTS).is_file():
            return place
    exists = folder.exists()
    raise UserError(
        "there is no checkpoint here" if exists else "there is no such folder",
        where=str(folder),
        found=("a file" if folder.is_file() else f"a folder without {WEIGHTS}") if exists else "",
        expected=f"a run folder, or a folder with {WEIGHTS}, {CONFIG} and {TOKENIZER}",
        fix="give the --out folder of an earlier run",
    )


def read_config(path: Path, described: Mapping[str, Any]) -> GPTConfig:
    """The decoder's shape out of config.json. Raises UserError for what is missing, unknown or of the wrong type."""
    if "model_type" in described or "architectures" in described:
        raise UserError(
            "this is a Hugging Face config.json, not one of ours",
            where=f'{path}, field "model_type"',
            found=repr(described.get("model_type", described.get("architectures"))),
            fix="import the folder first: minirlhf.models.hugging_face.import_hugging_face",
        )
    kind, fields = described.get("kind"), described.get("model")
    if kind not in KINDS.values():
        raise UserError(
            "unknown kind of model",
            where=f'{path}, field "kind"',
            found=repr(kind),
            expected=", ".join(KINDS.values()),
        )
    if not isinstance(fields, dict):
        raise UserError("the model's shape is missing", where=f'{path}, field "model"', found=repr(fields))
    known = typing.get_type_hints(GPTConfig)
    for name, value in fields.items():
        if name not in known:
            raise UserError(
                "a field of the model is unknown",
                where=f'{path}, field "model.{name}"',
                found=f"{name} = {value!r}",
                expected=", ".join(known),
                fix="use the config.json that was saved with the model",
            )
        if not fits(value, known[name]):
            raise UserError(
                "a field of the model has the wrong type",
                where=f'{path}, field "model.{name}"',
                found=repr(value),
                expected=getattr(known[name], "__name__", str(known[name])),
            )
    if "vocab_size" not in fields:
        raise UserError("a field of the model is missing", where=f'{path}, field "model.vocab_size"')
    try:
        return GPTConfig(**fields)
    except UserError as error:
        raise UserError(
            error.problem, where=str(path), found=error.found, expected=error.expected, fix=error.fix
        ) from None


def fits(value: object, hint: Any) -> bool:
    """Is this JSON value of this type? Knows int, float, bool, Literal, and unions of them with None."""
    if isinstance(hint, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def build(path: Path, described: Mapping[str, Any], config: GPTConfig) -> Model:
    """A model of the kind that config.json names, with fresh weights."""
    trunk, kind = GPT(config, attend=lean_attend), described["kind"]
    if kind == KINDS[RewardModel]:
        return RewardModel(trunk)
    if kind == KINDS[ValueModel]:
        return ValueModel(trunk)
    if kind == KINDS[Classifier]:
        classes = described.get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise UserError(
                "a classifier needs the names of its classes",
                where=f'{path}, field "classes"',
                found=repr(classes),
                expected='for instance ["negative", "positive"]',
            )
        return Classifier(trunk, classes)
    return trunk


def training_shards(folder: str | Path) -> Path | None:
    """Where save_checkpoint moved the training_shards it was given; None when it was given none."""
    shards = find_checkpoint(Path(folder)) / TRAINING_SHARDS
    return shards if shards.is_dir() else None


def kind_of(model: Model) -> str:
    """The name of the kind of model in config.json."""
    return next(name for kind, name in KINDS.items() if isinstance(model, kind))


def gpt_of(model: Model) -> GPT:
    """The decoder inside."""
    return model if isinstance(model, GPT) else model.trunk


def check_vocabulary(tokenizer: Tokenizer, config: GPTConfig, where: str) -> None:
    """Raises UserError unless the tokenizer has exactly as many tokens as the model."""
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            "the tokenizer is not this model's",
            where=where,
            found=f"a tokenizer of {tokenizer.vocab_size} tokens",
            expected=f"{config.vocab_size} tokens, as the model has",
            fix="use the tokenizer.json that was saved with the model",
        )
