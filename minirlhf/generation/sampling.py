"""From logits to one token: temperature, top-k, top-p, or simply the likeliest.

Dimension letters: B batch, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.likelihood import log_probs_of

BELOW_ONE = 1 - 2**-52
COLDEST = 1e-4  # below it logits / temperature leaves float32's range, and the draw is the likeliest token anyway


@dataclass(frozen=True)
class SamplingConfig:
    """How answers are drawn. Raises UserError when a number makes no sense."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    """logits are divided by it: below 1 bolder, above 1 more varied"""
    top_k: int | None = None
    """draw only from the k likeliest tokens"""
    top_p: float | None = None
    """draw only from the smallest set of likeliest tokens that holds at least this much probability"""
    greedy: bool = False
    """always take the likeliest token; temperature, top_k and top_p then play no part"""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError("max_new_tokens must be at least 1", found=f"max_new_tokens = {self.max_new_tokens}")
        if not COLDEST <= self.temperature < float("inf"):
            raise UserError(
                "the temperature is too low" if self.temperature < COLDEST else "the temperature is not a number",
                found=f"temperature = {self.temperature}",
                expected=f"a number from {COLDEST} upwards",
                fix="to always take the likeliest token, ask for greedy instead",
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(
                "top_k must be at least 1", found=f"top_k = {self.top_k}", fix="leave top_k out to draw from all tokens"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError("top_p must lie in (0, 1]", found=f"top_p = {self.top_p}", expected="for instance 0.9")


def sample_tokens(
    logits: Tensor, sampling: SamplingConfig, generator: torch.Generator | None = None, uniforms: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token per row of logits [B V]: ids int64 [B], and log_probs [B] in nats, of what was drawn.

    The log-prob is that of the distribution drawn from, so after temperature, top-k and top-p; greedy is certain,
    its log-prob 0. Randomness is one uniform number per row: float64 [B] in [0, 1), drawn from `generator` when not
    given. A row's token depends on its own logits and its own number only.
    Raises NonFiniteError if a row holds NaN, +inf, or -inf only; compiled code cannot, and has the log-prob NaN then.
    """
    if not torch.compiler.is_compiling() and not bool(logits.amax(dim=-1).isfinite().all()):  # NaN beats every maximum
        raise NonFiniteError("the model's logits are not finite, so no token can be drawn")
    if sampling.greedy:
        ids = logits.argmax(dim=-1)
        return ids, logits.new_zeros(ids.shape)
    log_probs = sampling_log_probs(logits, sampling)  # [B V]
    if uniforms is None:
        if generator is None:
            raise ValueError("sample_tokens needs a generator or uniforms")
        uniforms = torch.rand(logits.shape[0], generator=generator, dtype=torch.float64, device=generator.device)
    ids = invert_cumulative(log_probs, uniforms.to(logits.device))
    return ids, log_probs.gather(-1, ids[:, None]).squeeze(-1)


def sampling_log_probs(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """The distribution a token is drawn from, as log-probabilities in nats: [B V] -> [B V], -inf where cut off."""
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, log_probs_of(logits, sampling.temperature).exp(), sampling.top_p)
    return log_probs_of(logits, sampling.temperature)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """-inf everywhere but at the k largest logits of each row (exactly k, ties broken by torch.topk). [B V] -> [B V].

    Fan et al. 2018, arXiv:1805.04833, section 5.4.
    """
    if k >= logits.shape[-1]:
        return logits
    kept = logits.topk(k, dim=-1).indices
    return torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))


def keep_top_p(logits: Tensor, probs: Tensor, p: float) -> Tensor:
    """-inf everywhere but at the fewest likeliest tokens whose probs sum to at least p. [B V] -> [B V].

    Nucleus sampling, Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3. A token is in when those before it, from the
    likeliest down, hold less than p; so the token that crosses p is in, and the likeliest always is.
    """
    if p >= 1:
        return logits
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1).roll(1, dims=-1)  # [B V] probability of all the likelier tokens, not rounded twice
    before[..., 0] = 0.0
    cut = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(cut, -torch.inf)


def invert_cumulative(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """The first token at which the summed probability exceeds the row's uniform number. [B V], [B] -> int64 [B].

    Summed in float64, so that rare tokens keep their share; a token of probability 0 is never taken.
    """
    summed = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)  # [B V]
    total = summed[:, -1:]
    threshold = torch.minimum(uniforms[:, None] * total, total * BELOW_ONE)  # where u · total rounds up to the total
    ids = torch.searchsorted(summed, threshold, right=True).squeeze(-1)
    return ids.clamp(max=log_probs.shape[-1] - 1)  # NaN would lie behind the last token, where nobody may look it up
