"""How good the judge of the village is, beside how good a judge can be: annotators err, so nobody reaches 100 %."""

from pathlib import Path
from typing import Any

from minirlhf.data.batches import preference_batch
from minirlhf.data.formats import read_preferences
from minirlhf.data.shipped import shipped_path
from minirlhf.data.tokenize import tokenize_preferences
from minirlhf.data.true_reward import true_reward
from minirlhf.evaluation.held_out import evaluate_reward_model
from minirlhf.evaluation.statistics import win_rate
from minirlhf.models.checkpoint import load_model
from minirlhf.models.heads import RewardModel
from minirlhf.runs.files import read_json

NEW_CONTENT = "preferences_new_content.jsonl"


def best_possible(name: str) -> float:
    """How often a judge who knew the true reward would agree with the annotators' choices; ties count half."""
    pairs, _ = read_preferences([shipped_path(name)])
    prompts = [pair.prompt[0].content for pair in pairs]
    chosen = true_reward(prompts, [pair.chosen for pair in pairs])
    rejected = true_reward(prompts, [pair.rejected for pair in pairs])
    return win_rate(chosen, rejected).mean


def judge_record(folder: Path) -> dict[str, Any]:
    """The reward model on pairs about new prompts, as its stage measured it, and on prompts with new content."""
    model, tokenizer = load_model(folder)
    assert isinstance(model, RewardModel)
    pairs, _ = read_preferences([shipped_path(NEW_CONTENT)])
    items, _ = tokenize_preferences(pairs, tokenizer, model.trunk.config.context)
    groups = (preference_batch(items[start : start + 50], tokenizer.pad_id) for start in range(0, len(items), 50))
    result = evaluate_reward_model(model, groups)
    new = {
        "accuracy": result.accuracy.mean,
        "interval_95": list(result.accuracy.interval_95),
        "best_possible_accuracy": best_possible(NEW_CONTENT),
    }
    record = dict(read_json(folder / "evaluation.json"))
    return record | {"best_possible_accuracy": best_possible("preferences_held_out.jsonl"), "new_content": new}
