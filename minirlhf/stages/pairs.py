"""What `reward` and `dpo` share: pairs read, split and made into tokens, and what came of them in words."""

from collections.abc import Sequence
from pathlib import Path

from minirlhf.data.formats import read_preferences
from minirlhf.data.shipped import shipped_path
from minirlhf.data.split import split_by_prompt
from minirlhf.data.tokenize import TokenizedPair, tokenize_preferences
from minirlhf.evaluation.calibration import PreferenceReport
from minirlhf.records import Preference
from minirlhf.stages.common import DataOptions, say
from minirlhf.tokenizers.tokenizer import Tokenizer


def read_pairs(
    source: DataOptions, held_out_paths: Sequence[Path], held_out_fraction: float, seed: int
) -> tuple[list[Preference], list[Preference], list[Path]]:
    """Pairs to train on, held-out pairs, and the files they came from.

    Held out is what held_out_paths hold, or the village's own file for the village's pairs, or a share of the prompts.
    """
    paths = source.paths("preferences.jsonl.gz")
    preferences, report = read_preferences(paths, **source.reading())
    say("pairs read", report)
    held_out_paths = held_out_paths or (() if source.data else (shipped_path("preferences_held_out.jsonl"),))
    if held_out_paths:
        held_out, _ = read_preferences(held_out_paths, **source.reading())
        return list(preferences), list(held_out), [*paths, *held_out_paths]
    train, held_out = split_by_prompt(preferences, held_out_fraction, seed)
    return list(train), list(held_out), list(paths)


def tokenized(
    train: Sequence[Preference], held_out: Sequence[Preference], tokenizer: Tokenizer, context: int
) -> tuple[list[TokenizedPair], list[TokenizedPair]]:
    """Both as tokens; what does not fit the context is left out and said."""
    pairs, report = tokenize_preferences(train, tokenizer, context)
    say("pairs to train on", report)
    return pairs, tokenize_preferences(held_out, tokenizer, context)[0] if held_out else []


def sentence(report: PreferenceReport) -> str:
    """The result in words, honest about how much the held-out pairs can say."""
    low, high = report.accuracy.interval_95
    text = f"held-out accuracy {report.accuracy.mean:.1%}, 95 % interval {low:.1%} to {high:.1%}"
    text += f", {report.accuracy.n} pairs; calibration error {report.calibration_error:.3f}"
    if low <= 0.5 <= high:
        text += "\nThe interval holds 50 %: these pairs do not show that the model is better than a coin."
    if report.length is not None:
        text += f"\nrank correlation of score and length {report.length.spearman:+.2f}"
        if report.length.length_bias:
            text += "\nBeware: the model prefers longer answers more than the labels do."
    return text
