"""The shape of a decoder: GPT-2's by default, Llama's and Qwen 3's by other settings."""

from dataclasses import dataclass
from typing import Literal

from minirlhf.errors import UserError
from minirlhf.nn.mlp import GeluMLP, SquaredReluMLP, SwiGLU

MLPS = {"gelu": GeluMLP, "relu2": SquaredReluMLP, "swiglu": SwiGLU}


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a decoder. Raises UserError when the numbers do not fit together."""

    vocab_size: int
    context: int = 64
    """tokens the model can look at, prompt and answer together"""
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    """heads of keys and values (grouped-query attention); as many as heads when not given"""
    width: int = 128
    mlp_width: int | None = None
    """numbers inside the MLP; 4 · width for gelu and relu2, 8/3 · width rounded up to a multiple of 8 for swiglu"""
    positions: Literal["learned", "rope"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["gelu", "relu2", "swiglu"] = "gelu"
    """gelu is GPT-2's; relu2, max(0, x)², is cheaper and learns as well or better; swiglu is Llama's"""
    bias: bool = True
    qk_norm: bool = False
    """bring each head's queries and keys to a steady size before they meet (RMS norm), which allows larger steps"""
    dropout: float = 0.0
    """share of the embedding's and of each block's output dropped while training"""
    tie_embeddings: bool = True
    """one matrix both reads tokens and predicts them"""
    zero_init: bool = False
    """start what writes to the residual stream, and an untied unembedding, at 0 instead of at small random numbers"""
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "layers", "heads", "width", "kv_heads", "mlp_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1", found=f"{name} = {value}")
        if self.width % self.heads:
            raise UserError(
                "the width must be a multiple of the number of heads",
                found=f"width = {self.width}, heads = {self.heads}",
                fix=f"for instance width = {self.heads * max(1, round(self.width / self.heads))}",
            )
        if self.heads % self.key_value_heads:
            raise UserError(
                "the number of heads must be a multiple of kv_heads",
                found=f"heads = {self.heads}, kv_heads = {self.kv_heads}",
            )
        if self.positions == "rope" and self.head_width % 2:
            raise UserError(
                "rotary positions turn pairs of numbers, so width / heads must be even",
                found=f"width / heads = {self.head_width}",
            )
        for name, choices in (("positions", ("learned", "rope")), ("norm", ("layer", "rms")), ("mlp", tuple(MLPS))):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"unknown choice for {name}", found=repr(getattr(self, name)), expected=" or ".join(choices)
                )
        for name in ("rope_base", "norm_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} must be a positive number", found=f"{name} = {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise UserError("dropout must lie in [0, 1)", found=f"dropout = {self.dropout}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def hidden_width(self) -> int:
        if self.mlp_width is not None:
            return self.mlp_width
        return -(-8 * self.width // 24) * 8 if self.mlp == "swiglu" else 4 * self.width
