"""Three readings of the same trunk: a score per answer, a value per token, a class per text."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minirlhf.models.gpt import GPT


class RewardModel(nn.Module):
    """One score per sequence, read at the last real token: score = gain · raw + bias_shift. float [B], reward units.

    The head starts with std 1/√(D+1) and bias 0; `normalise` sets gain and bias_shift. Ziegler et al. 2019,
    arXiv:1909.08593, section 2.1; Huang et al. 2023, "The N Implementation Details of RLHF with PPO".
    The trunk is used as it is; `from_trunk` copies it first, so that the model it came from is left alone.
    """

    gain: Tensor
    bias_shift: Tensor

    def __init__(self, trunk: GPT, generator: torch.Generator | None = None):
        super().__init__()
        self.trunk = trunk
        std = (trunk.config.width + 1) ** -0.5
        self.head = make_head(trunk, 1, std, generator)
        self.register_buffer("gain", torch.ones((), device=self.head.weight.device, dtype=self.head.weight.dtype))
        self.register_buffer("bias_shift", torch.zeros_like(self.gain))

    @classmethod
    def from_trunk(cls, trunk: GPT, generator: torch.Generator | None = None) -> "RewardModel":
        return cls(copy.deepcopy(trunk), generator)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """ids int64 [B T], attention_mask bool [B T] (every token real when None) -> scores [B]."""
        mask = None if right_padded(attention_mask) else attention_mask
        x, _ = self.trunk.hidden(ids, mask, asked=last_real_index(attention_mask))  # [B 1 D]
        return self.gain * self.head(x)[:, 0, 0] + self.bias_shift

    @torch.no_grad()
    def normalise(self, scores: Tensor) -> None:
        """Choose gain and bias_shift so that these scores of ours, [n], would have had mean 0 and std 1.

        The order of any two answers stays. Scores that are all equal are only shifted to 0. Raises ValueError
        when there are none, or one is not finite.
        """
        if scores.numel() == 0 or not bool(scores.isfinite().all()):
            raise ValueError("normalise needs at least one score, and finite ones")
        std, mean = torch.std_mean(scores.to(self.gain), correction=0)
        scale = torch.where(std > 0, 1 / std, torch.ones_like(std))
        self.bias_shift.copy_((self.bias_shift - mean) * scale)
        self.gain.mul_(scale)


class ValueModel(nn.Module):
    """One value per token: the return expected after reading up to it. The head starts at zero, so all values are 0.

    The trunk is used as it is; `from_trunk` copies it first. On the policy itself, ValueModel(policy), both read one
    trunk: half the work, and the value loss moves the features that the policy reads.
    """

    def __init__(self, trunk: GPT):
        super().__init__()
        self.trunk = trunk
        self.head = make_head(trunk, 1, 0.0, None)

    @classmethod
    def from_trunk(cls, trunk: GPT) -> "ValueModel":
        return cls(copy.deepcopy(trunk))

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None, last: int | None = None) -> Tensor:
        """ids int64 [B T] -> values [B T] in reward units, or only of the last `last` positions, [B last]."""
        x, _ = self.trunk.hidden(ids, attention_mask, asked=last)
        return self.read(x)

    def read(self, x: Tensor) -> Tensor:
        """The values that the trunk's hidden states stand for, [... D] -> [...]."""
        return self.head(x).squeeze(-1)


class Classifier(nn.Module):
    """One logit per class, read at the last real token, [B C]. `classes` names them in the logits' order."""

    def __init__(self, trunk: GPT, classes: Sequence[str], generator: torch.Generator | None = None):
        super().__init__()
        self.trunk, self.classes = trunk, tuple(classes)
        self.head = make_head(trunk, len(self.classes), 0.02, generator)

    @classmethod
    def from_trunk(cls, trunk: GPT, classes: Sequence[str], generator: torch.Generator | None = None) -> "Classifier":
        return cls(copy.deepcopy(trunk), classes, generator)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """ids int64 [B T], attention_mask bool [B T] (every token real when None) -> class logits [B C]."""
        x, _ = self.trunk.hidden(ids, attention_mask, asked=last_real_index(attention_mask))  # [B 1 D]
        return self.head(x)[:, 0]


def right_padded(attention_mask: Tensor | None) -> bool:
    """Does padding, if any, stand behind each row's tokens? A causal model never looks there, so it needs no mask."""
    return attention_mask is None or bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())


def last_real_index(attention_mask: Tensor | None) -> Tensor | int:
    """Each row's last real token: its place int64 [B], or 1, the last, without a mask.

    Raises ValueError for a row that is padding throughout.
    """
    if attention_mask is None:
        return 1
    if not bool(attention_mask.any(dim=1).all()):
        raise ValueError("a row of attention_mask has no real token to read the score at")
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * places).argmax(dim=1)


@torch.no_grad()
def make_head(trunk: GPT, outputs: int, std: float, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer [... D] -> [... outputs] on the trunk's device, weights normal with this std, bias 0."""
    like = trunk.token_embedding.weight
    head = nn.utils.skip_init(nn.Linear, trunk.config.width, outputs, device=like.device, dtype=like.dtype)
    generator = generator or torch.Generator().manual_seed(0)
    head.weight.copy_(std * torch.randn(head.weight.shape, generator=generator, device=generator.device))
    head.bias.zero_()
    return head
