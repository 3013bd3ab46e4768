"""The command `evaluate`: a model on held-out data, or two models by the same judge."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Literal

import torch

from minirlhf.data.batches import conversation_batch, preference_batch, prompt_batch, token_stream, validation_windows
from minirlhf.data.formats import read_conversations, read_documents, read_preferences, read_prompts
from minirlhf.data.tokenize import drop_long_prompts, tokenize_conversations, tokenize_preferences
from minirlhf.errors import UserError
from minirlhf.evaluation.held_out import evaluate_held_out, evaluate_reward_model
from minirlhf.evaluation.statistics import mean_interval, win_rate
from minirlhf.evaluation.text_metrics import distinct_n
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.checkpoint import load_model
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import RewardModel
from minirlhf.records import Prompt
from minirlhf.rollout.scoring import Scorer
from minirlhf.runs.files import write_json
from minirlhf.seeding import torch_generator
from minirlhf.stages.common import DataOptions, check_free, load_gpt, make_room, pick, say, split_rows
from minirlhf.stages.pairs import sentence
from minirlhf.stages.policy import find_scorer
from minirlhf.stages.probes import continuations, prompts_to
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.checks import check_settings


@dataclass(frozen=True)
class Evaluate:
    """Measure a model.

    A language model: its held-out loss on text or conversations; or, with --reward, what a judge says of its answers
    to prompts, and with --against how often it beats another model. A reward model: its accuracy on pairs.
    """

    model: Path  # the model to measure: a run folder or a checkpoint
    source: DataOptions = field(default_factory=DataOptions)
    kind: Literal["text", "conversations"] = "text"  # what --data holds, for the loss of a language model
    reward: str | None = None  # judge the answers to prompts: module:function, or the folder of a reward model
    against: Path | None = None  # another model to answer the same prompts
    prompts: int = 200  # how many prompts are answered
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    out: Path | None = None  # write the result here too, as JSON
    overwrite: bool = False  # if the file exists, move it aside first
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run_evaluate(stage: Evaluate) -> dict[str, Any]:
    """Prints the result and returns it."""
    device = pick(stage.device)
    check_settings(stage, prompts=(1, float("inf")))
    if stage.out is not None:
        check_free(stage.out, stage.overwrite)
    if stage.against is not None and stage.reward is None:
        raise UserError("two models need a judge", found="--against without --reward", fix="--reward module:function")
    model, tokenizer = load_model(stage.model)
    if isinstance(model, RewardModel):
        result = _reward_model(stage, model.to(device), tokenizer)
    elif not isinstance(model, GPT):
        raise UserError(
            "this kind of model cannot be evaluated",
            where=str(stage.model),
            found=type(model).__name__,
            expected="a folder made by pretrain, sft, reward, dpo, grpo, reinforce or ppo",
        )
    elif stage.reward is not None:
        result = _judged(stage, model.to(device), tokenizer, device)
    else:
        result = _held_out(stage, model.to(device), tokenizer)
    if stage.out is not None:
        make_room(stage.out)
        write_json(stage.out, result)
        print(f"written to {stage.out}")
    return result


def _held_out(stage: Evaluate, model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    context = model.config.context
    if stage.kind == "text":
        documents, report = read_documents(stage.source.paths("stories.txt"), **stage.source.reading())
        stream = token_stream(documents, tokenizer)
        if not stage.source.data:  # pretrain holds out the last tenth of the shipped stories
            stream = stream[int(len(stream) * 0.9) :]
        batches = list(validation_windows(stream, context))
    else:
        conversations, report = read_conversations(stage.source.paths("instructions.jsonl"), **stage.source.reading())
        items, _ = tokenize_conversations(conversations, tokenizer, context)
        batches = [conversation_batch(group, tokenizer.pad_id) for group in split_rows(items, 32)]
    say(stage.kind, report)
    if not batches:
        raise UserError("the text is too short to predict anything", found="fewer than two tokens")
    result = evaluate_held_out(model, batches, tokenizer)
    loss, bits = result.loss_nats_per_token, result.bits_per_byte
    print(f"{loss:.4f} nats per token, {bits:.4f} bits per byte, {result.tokens} tokens")
    return {
        "loss_nats_per_token": loss,
        "bits_per_byte": bits,
        "tokens": result.tokens,
        "bytes": result.bytes,
    }


def _reward_model(stage: Evaluate, model: RewardModel, tokenizer: Tokenizer) -> dict[str, Any]:
    preferences, report = read_preferences(stage.source.paths("preferences_held_out.jsonl"), **stage.source.reading())
    say("pairs", report)
    pairs, report = tokenize_preferences(preferences, tokenizer, model.trunk.config.context)
    say("pairs that fit", report)
    result = evaluate_reward_model(
        model, (preference_batch(group, tokenizer.pad_id) for group in split_rows(pairs, 32))
    )
    print(sentence(result))
    return result.as_dict()


def _judged(stage: Evaluate, model: GPT, tokenizer: Tokenizer, device: torch.device) -> dict[str, Any]:
    """Both models answer the same prompts; each answer is scored by the same judge, in the judge's own units."""
    assert stage.reward is not None
    models = {str(stage.model): (model, tokenizer)}
    if stage.against is not None:
        models[str(stage.against)] = load_gpt(stage.against, device)
    prompts, _ = read_prompts(stage.source.paths("prompts_held_out.jsonl"), **stage.source.reading())
    for each, its_tokenizer in models.values():
        room = each.config.context - stage.sampling.max_new_tokens
        if room < 1:
            raise UserError(
                "the answers fill the whole context, so no prompt fits before them",
                found=f"answers of up to {stage.sampling.max_new_tokens} tokens in a context of {each.config.context}",
                fix=f"for instance --max-new-tokens {each.config.context // 2}",
            )
        prompts, report = drop_long_prompts(prompts, its_tokenizer, room)
    say("prompts", report)
    prompts = prompts[: stage.prompts]
    result: dict[str, Any] = {"prompts": len(prompts)}
    all_scores = []
    for name, (each, its_tokenizer) in models.items():
        scorer, _ = find_scorer(stage.reward, its_tokenizer, device)
        scores, numbers = answered_and_scored(each, its_tokenizer, prompts, scorer, stage.sampling, stage.seed)
        all_scores.append(scores)
        result[name] = numbers
        score = numbers["score"]
        low, high = score["interval_95"]
        print(f"{name}: score {score['mean']:.3f} ({low:.3f} to {high:.3f}), ends {numbers['eos_rate']:.0%}, "
              f"{numbers['mean_response_tokens']:.1f} tokens, distinct-2 {numbers['distinct_2']:.3f}")  # fmt: skip
    if len(all_scores) == 2:
        wins = win_rate(*all_scores)
        result["win_rate"] = wins.as_dict()
        low, high = wins.interval_95
        print(f"{stage.model} beats {stage.against} in {wins.mean:.1%} of {wins.n} prompts ({low:.1%} to {high:.1%})")
    return result


def answered_and_scored(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], scorer: Scorer, sampling: SamplingConfig, seed: int
) -> tuple[list[float], dict[str, Any]]:
    """The score of the model's answer to each prompt, and what the answers are like as a set."""
    scores: list[float] = []
    responses: list[str] = []
    ended = tokens = 0
    device = model.causal.device
    for number, group in enumerate(split_rows(prompts, 64)):
        generator = torch_generator(seed, "evaluate", number, device=device)
        room = model.config.context - sampling.max_new_tokens
        batch = prompts_to(device, prompt_batch(group, tokenizer, room))
        texts, made = continuations(model, tokenizer, batch, sampling, generator)
        scores += scorer(made, batch.texts, tuple(texts)).tolist()
        responses += texts
        ended += int(made.ended.sum())
        tokens += int(made.response_mask.sum())
    numbers = {
        "score": mean_interval(scores).as_dict() if len(scores) > 1 else {"mean": scores[0], "interval_95": [nan, nan]},
        "eos_rate": ended / len(prompts),
        "mean_response_tokens": tokens / len(prompts),
        "distinct_2": distinct_n(responses, 2),
    }
    return scores, numbers
