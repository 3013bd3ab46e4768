"""The narrow waist: log-probabilities, in nats, of the tokens that really came.

Every stage passes through here. The masked mean of these numbers is the supervised loss, times an advantage it is
REINFORCE, the exponent of a difference is PPO's ratio, the difference to the reference is the KL. This is the only
module that shifts targets, divides by a temperature or takes a log-softmax.

Letters: B batch, T tokens, P prompt tokens, R response tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LanguageModel(Protocol):
    """What a decoder offers: what it makes of the tokens, [B T D], and the matrix [V D] that reads logits off it."""

    precision: torch.dtype | None  # of matrix products; None: that of the weights

    @property
    def unembedding_weight(self) -> Tensor: ...

    def hidden(self, ids: Tensor, /) -> tuple[Tensor, Any]: ...

    def logits(self, x: Tensor, /) -> Tensor: ...


def log_probs_of(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of the whole vocabulary, nats: log softmax(logits / temperature).

    Shapes: logits float [... V]; returns [... V]. Half precision is raised to float32 first.
    Raises: ValueError unless logits are floating point and 0 < temperature < infinity.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    if logits.ndim == 0 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point [... V], got {logits.dtype} {tuple(logits.shape)}")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if temperature != 1.0:  # dividing by 1 would copy the largest tensor of the program for nothing
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def _of_targets(log_probs: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64 token ids, got {targets.dtype}")
    if targets.shape != log_probs.shape[:-1]:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, logits have {tuple(log_probs.shape)}")
    return log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # [... V] -> [...]


def token_log_probs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each target under its own row of logits.

    Shapes: logits float [... V], targets int64 [...]; returns [...].
    Units:  nats, at most 0.
    Grad:   (onehot(target) - softmax(logits / temperature)) / temperature.
    Raises: ValueError if shapes or dtypes do not fit, or the temperature is not positive and finite.
    """
    return _of_targets(log_probs_of(logits, temperature), targets)


def token_log_probs_and_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """As token_log_probs, with the entropy of each row's distribution beside it; it costs two more [... V] arrays.

    Shapes: logits float [... V], targets int64 [...]; returns two of [...].
    Units:  nats; the entropy lies between 0 and log V. A logit of -inf (a forbidden token) adds 0 to it.
    Raises: ValueError as token_log_probs.
    """
    log_probs = log_probs_of(logits, temperature)
    # The clamp turns the forbidden tokens' 0 * -inf, which is NaN, into 0 * (a finite number): one far from the largest
    # there is, since the gradient multiplies it once more. A probability of e^-10,000 is 0 in every number format.
    entropy = -(log_probs.exp() * log_probs.clamp_min(-10_000)).sum(-1)
    return _of_targets(log_probs, targets), entropy


def sequence_log_probs(
    model_forward: Callable[..., Tensor], ids: Tensor, attention_mask: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Log-probability of every token of a sequence but the first, each given the tokens before it.

    model_forward(ids [B T], attention_mask [B T]) gives logits [B T V]; without a mask it gets ids alone.
    Shapes: ids int64 [B T+1], attention_mask bool [B T+1] or None; returns [B T]: entry t belongs to ids[:, t+1].
    Units:  nats.
    Raises: ValueError if shapes do not fit or there are fewer than two tokens.
    """
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"ids must be [B T+1] with at least 2 tokens, got {tuple(ids.shape)}")
    if attention_mask is None:
        return token_log_probs(model_forward(ids[:, :-1]), ids[:, 1:], temperature)
    if attention_mask.shape != ids.shape:
        raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}, ids have {tuple(ids.shape)}")
    return token_log_probs(model_forward(ids[:, :-1], attention_mask[:, :-1]), ids[:, 1:], temperature)


def response_log_probs(
    model_forward: Callable[..., Tensor],
    ids: Tensor,
    attention_mask: Tensor,
    response_tokens: int,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a response's tokens given prompt and response so far, and the entropies they came from.

    model_forward(ids [B P+R-1], attention_mask [B P+R-1], last=R) gives the logits [B R V] of the last R positions:
    position P-1, the end of the prompt, predicts the first response token.
    Shapes: ids int64 [B P+R], attention_mask bool [B P+R], response_tokens = R; returns two of [B R].
    Units:  nats.
    Raises: ValueError if shapes do not fit, or there is no prompt token or no response token.
    """
    if ids.ndim != 2 or attention_mask.shape != ids.shape:
        raise ValueError(
            f"ids {tuple(ids.shape)} and attention_mask {tuple(attention_mask.shape)} must both be [B P+R]"
        )
    if not 1 <= response_tokens < ids.shape[1]:
        raise ValueError(f"response_tokens must lie in [1, {ids.shape[1] - 1}], got {response_tokens}")
    logits = model_forward(ids[:, :-1], attention_mask[:, :-1], last=response_tokens)  # [B R V]
    return token_log_probs_and_entropy(logits, ids[:, -response_tokens:], temperature)


def chunked_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, chunk: int | None = None
) -> Tensor:
    """The summed surprise of targets under logits = x weightᵀ, without ever holding all the logits.

    A chunk of rows at a time: its logits, its loss and its part of the gradient are made while they are at hand, and
    the logits forgotten. Memory does not grow with N · V, and the gradient costs no second pass. Once differentiable.
    The products are of x's dtype, whatever the weight's; sums and the weight's gradient are in float32 or better.
    Shapes: x float [N D], weight float [V D], targets int64 [N]; returns a scalar.
    Units:  nats, summed over the N targets; 0 when there are none.
    Grad:   of the logits (softmax - onehot(target)) / temperature.
    """
    rows = chunk or max(1, CHUNK_NUMBERS.get(x.device.type, 1 << 27) // weight.shape[0])
    if not torch.is_grad_enabled():
        matrix = weight.to(x)
        parts = [token_log_probs(part @ matrix.T, ids, temperature).sum() for part, ids in _chunks(rows, x, targets)]
        return -torch.stack(parts).sum() if parts else x.new_zeros(())
    return _ChunkedCrossEntropy.apply(x, weight, targets, temperature, rows)


CHUNK_NUMBERS = {"cpu": 1 << 20}  # logits at a time: 4 MB of float32; elsewhere 512 MB, for a GPU wants many rows


def _chunks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True) if len(tensors[0]) else iter(())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """chunked_cross_entropy with both gradients reckoned on the way forward, ready to be scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, temperature: float, rows: int) -> Tensor:
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        matrix, dx, dweight = weight.to(x), torch.empty_like(x), torch.zeros_like(weight)
        for part, ids, dpart in _chunks(rows, x, targets, dx):
            log_probs = log_probs_of(part @ matrix.T, temperature)  # [n V]
            total -= _of_targets(log_probs, ids).sum()
            dlogits = log_probs.exp_()
            dlogits.scatter_add_(1, ids[:, None], -torch.ones_like(dlogits[:, :1]))
            dlogits = dlogits.to(x.dtype)
            torch.mm(dlogits, matrix, out=dpart)
            if x.dtype == weight.dtype:
                dweight.addmm_(dlogits.T, part)
            else:
                dweight += dlogits.T @ part
        ctx.save_for_backward(dx, dweight)
        ctx.temperature = temperature
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        dx, dweight = ctx.saved_tensors
        scale = dtotal / ctx.temperature  # here, and not on the way: these are smaller than the logits
        return dx * scale, dweight * scale, None, None, None


def sequence_cross_entropy(model: LanguageModel, ids: Tensor, loss_mask: Tensor) -> Tensor:
    """The summed surprise of the counted tokens of a batch of sequences; logits are made for those tokens only.

    The same number, and the same gradient, as cross_entropy_sum of sequence_log_probs.
    Shapes: ids int64 [B T+1], loss_mask bool [B T]: entry t says whether ids[:, t+1] counts; returns a scalar, nats.
    """
    x, _ = model.hidden(ids[:, :-1])  # [B T D]
    counted = x[loss_mask].to(model.precision)  # [N D]
    return chunked_cross_entropy(counted, model.unembedding_weight, ids[:, 1:][loss_mask])


def answer_log_probs(model: LanguageModel, ids: Tensor, loss_mask: Tensor) -> Tensor:
    """The log-probability of each whole answer given its prompt; logits are made for the answers' tokens only.

    The same numbers, and the same gradient, as sequence_log_probs summed over the tokens that count.
    Shapes: ids int64 [B T+1], loss_mask bool [B T]: entry t says whether ids[:, t+1] counts; returns [B].
    Units:  nats; 0 where nothing counts.
    """
    x, _ = model.hidden(ids[:, :-1])  # [B T D]; right padding is never looked at, so no mask is needed
    log_probs = token_log_probs(model.logits(x[loss_mask]), ids[:, 1:][loss_mask])  # [N]
    return log_probs.new_zeros(loss_mask.shape).masked_scatter(loss_mask, log_probs).sum(dim=1)
