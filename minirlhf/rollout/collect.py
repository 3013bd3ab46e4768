"""One rollout: prompts in, facts out. Nothing here carries a graph, and nothing here draws a conclusion."""

from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor, nn

from minirlhf.errors import UserError
from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import ValueModel
from minirlhf.models.sharded import whole
from minirlhf.objectives.guards import check_finite
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.parallel.ranks import ALONE, World
from minirlhf.records import Generation, PromptBatch, Rollout
from minirlhf.rollout.gather import gather_rollout, share_prompts
from minirlhf.rollout.padding import for_responses, needed_columns
from minirlhf.rollout.scoring import Scorer
from minirlhf.tokenizers.tokenizer import Tokenizer


@torch.no_grad()
def collect(
    policy: GPT,
    value_model: nn.Module | None,
    reference: nn.Module,
    scorer: Scorer,
    prompts: PromptBatch,
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    generator: torch.Generator,
    missing_end_penalty: float | None = 1.0,
    micro_batch_size: int | None = None,
    world: World = ALONE,
) -> Rollout:
    """Let the policy answer, cut each answer at its first end token, score it, and note every log-prob and value.

    The policy's log-probs are those its tokens were drawn with, the reference's come from response_log_probs at the
    same temperature; the update calls that function for the policy, so its first ratio is 1 up to rounding.
    Without a value model the values are 0. Every network must be in eval() mode: dropout would make two passes over
    one answer disagree.
    The scorer sees the cut answer. See `penalise_missing_end` for answers that never end. In a world of several
    processes each answers its share of the prompts, and all are given the whole rollout.
    Raises UserError for sampling that is not plain sampling at a temperature, NonFiniteError naming the first weight
    of the policy or fact of the rollout that is NaN or infinite, ValueError for a network in train mode.
    """
    check_plain_sampling(sampling)
    check_evaluation_mode(policy=policy, value_model=value_model, reference=reference)
    started = perf_counter()
    prompts = share_prompts(world, prompts, sampling.max_new_tokens, generator)
    with whole(policy):
        check_finite(**{f"policy.{name}": weight for name, weight in policy.named_parameters()})  # cheap
        generation = generate(policy, prompts, sampling, (tokenizer.end_id,), tokenizer.pad_id, generator)
    generation = cut_at_stop(generation, (tokenizer.end_id,), tokenizer.pad_id)
    responses = response_texts(generation, tokenizer)
    generation_seconds = perf_counter() - started

    def log_probs_of(model: nn.Module) -> Tensor:
        def evaluate(ids: Tensor, attention_mask: Tensor, response_tokens: int) -> Tensor:
            return response_log_probs(model, ids, attention_mask, response_tokens, sampling.temperature)[0]

        return for_responses(evaluate, *sequence, micro_batch_size)

    def values_of(model: nn.Module) -> Tensor:
        def evaluate(ids: Tensor, attention_mask: Tensor, response_tokens: int) -> Tensor:
            return response_values(model, ids, attention_mask, response_tokens)

        return for_responses(evaluate, *sequence, micro_batch_size)

    sequence = (generation.ids, generation.attention_mask, generation.response_mask)
    old_log_probs = generation.log_probs  # [B R] nats, noted while sampling
    ref_log_probs = log_probs_of(reference)
    values = torch.zeros_like(old_log_probs) if value_model is None else values_of(value_model)
    scores = scorer(generation, prompts.texts, responses).detach().to(old_log_probs)  # [B]
    check_finite(old_log_probs=old_log_probs, ref_log_probs=ref_log_probs, values=values, scores=scores)
    rollout = Rollout(
        ids=generation.ids,
        attention_mask=generation.attention_mask,
        response_mask=generation.response_mask,
        ended=generation.ended,
        old_log_probs=old_log_probs,
        ref_log_probs=ref_log_probs,
        values=values,
        scores=penalise_missing_end(scores, generation.ended, missing_end_penalty),
        prompts=prompts.texts,
        responses=responses,
        generation_seconds=generation_seconds,
    )
    return gather_rollout(world, rollout, tokenizer.pad_id)


def response_values(value_model: nn.Module, ids: Tensor, attention_mask: Tensor, response_tokens: int) -> Tensor:
    """V of the state *before* each response token, [B R]: the same positions whose logits predict those tokens."""
    values: Tensor = value_model(ids[:, :-1], attention_mask[:, :-1], last=response_tokens)
    return values


def response_log_probs_and_values(
    policy: GPT,
    value_model: ValueModel,
    ids: Tensor,
    attention_mask: Tensor,
    response_tokens: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """response_log_probs of the policy (log-probs and entropies, nats) and response_values, three of [B R].

    A value model on the policy's own trunk costs no pass of its own: both are read off the same hidden states.
    """
    sequence = (ids, attention_mask, response_tokens)
    if value_model.trunk is not policy:
        return *response_log_probs(policy, *sequence, temperature), response_values(value_model, *sequence)
    x, _ = policy.hidden(ids[:, :-1], attention_mask[:, :-1], asked=response_tokens)  # [B R D]: what stands before each
    log_probs, entropies = response_log_probs(lambda *_, **__: policy.logits(x), *sequence, temperature)
    return log_probs, entropies, value_model.read(x)


def cut_at_stop(generation: Generation, stop_ids: tuple[int, ...], pad_id: int) -> Generation:
    """Nothing after the first stop token counts: it becomes padding, and columns no row needs are dropped.

    Works from the ids alone, so it does not matter what a generator wrote behind the stop token.
    """
    mask = generation.response_mask
    response_tokens = mask.shape[1]
    response_ids = generation.ids[:, -response_tokens:]
    is_stop = torch.isin(response_ids, torch.tensor(stop_ids, device=mask.device)) & mask  # [B R]
    stops_before = is_stop.cumsum(dim=1) - is_stop.long()
    mask = mask & (stops_before == 0)
    prompt_mask = generation.attention_mask[:, :-response_tokens]
    cut = replace(
        generation,
        ids=torch.cat([generation.ids[:, :-response_tokens], response_ids.masked_fill(~mask, pad_id)], dim=1),
        attention_mask=torch.cat([prompt_mask, mask], dim=1),
        response_mask=mask,
        ended=is_stop.any(dim=1),
        log_probs=generation.log_probs.masked_fill(~mask, 0.0),
    )
    columns, response_columns = needed_columns(cut.attention_mask, mask)
    return Generation(
        ids=cut.ids[:, columns],
        attention_mask=cut.attention_mask[:, columns],
        response_mask=mask[:, response_columns],
        ended=cut.ended,
        log_probs=cut.log_probs[:, response_columns],
    )


def penalise_missing_end(scores: Tensor, ended: Tensor, missing_end_penalty: float | None) -> Tensor:
    """An answer without an end token scores -penalty; if its own score was below 0, that much less. [B] -> [B].

    The fixed penalty of Huang et al. 2023 ("EOS trick"), made safe for scores that are negative by habit: an answer
    never gains by not ending. None leaves the scores as they are.
    """
    if missing_end_penalty is None:
        return scores
    return torch.where(ended, scores, scores.clamp(max=0.0) - missing_end_penalty)


def response_texts(generation: Generation, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Each response as text, without its end token and without padding."""
    response_ids = generation.ids[:, -generation.response_mask.shape[1] :]
    return tuple(
        tokenizer.decode(ids[mask].tolist(), skip_control=True)
        for ids, mask in zip(response_ids, generation.response_mask, strict=True)
    )


def check_plain_sampling(sampling: SamplingConfig) -> None:
    """Refuse what makes the sampled distribution differ from the one whose log-probs are trained on.

    Top-k, top-p and greedy cut the distribution; the ratio of PPO and the KL would then compare two different things.
    """
    cuts = {"top_k": sampling.top_k, "top_p": sampling.top_p, "greedy": sampling.greedy or None}
    used = [f"{name}={value}" for name, value in cuts.items() if value is not None]
    if used:
        raise UserError(
            "Rollouts are sampled from the policy's whole distribution",
            found=", ".join(used),
            expected="a temperature only",
            fix="leave top-k, top-p and greedy to `generate` and `chat`; set the temperature instead",
        )
    if not sampling.temperature > 0:
        raise UserError("Rollouts need a temperature above 0", found=f"temperature={sampling.temperature}")


def check_evaluation_mode(**networks: nn.Module | None) -> None:
    """Raises ValueError, naming the network, if dropout could be active."""
    for name, network in networks.items():
        if network is not None and network.training:
            raise ValueError(f"{name} is in train mode; call {name}.eval(), so that dropout is off")
