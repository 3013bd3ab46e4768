"""The transformers library's config.json for GPT-2, Llama, Arcee and Qwen 3, to and from ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minirlhf.errors import UserError
from minirlhf.models.gpt import GPTConfig

ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}  # gelu_new is the tanh form
SHAPES = {  # model_type -> positions, norm, qk_norm, the MLPs we know there
    "gpt2": ("learned", "layer", False, tuple(ACTIVATIONS)),
    "llama": ("rope", "rms", False, ("swiglu",)),
    "arcee": ("rope", "rms", False, tuple(ACTIVATIONS)),  # Llama with an MLP that has no gate
    "qwen3": ("rope", "rms", True, ("swiglu",)),  # Llama with queries and keys of steady size, and without biases
}


def family(config: GPTConfig) -> str:
    """transformers' model_type for this shape. Raises UserError for a mixture, which transformers does not know."""
    for name, (*shape, mlps) in SHAPES.items():
        fits = [config.positions, config.norm, config.qk_norm] == shape and config.mlp in mlps
        if name == "gpt2":
            fits = fits and config.key_value_heads == config.heads
        if name == "qwen3":
            fits = fits and not config.bias
        if fits:
            return name
    found = {name: getattr(config, name) for name in ("positions", "norm", "qk_norm", "mlp", "bias")}
    raise UserError(
        "transformers has no model of this shape",
        found=", ".join(f"{name} = {value}" for name, value in {**found, "kv_heads": config.key_value_heads}.items()),
        expected="learned positions, layer norms, mlp gelu or relu2, kv_heads = heads; or rope and rms with any mlp; "
        "or rope, rms, qk_norm and swiglu without biases",
    )


def to_gpt2(config: GPTConfig) -> dict[str, Any]:
    """config.json for GPT2LMHeadModel."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.hidden_width,
        "activation_function": ACTIVATIONS[config.mlp],
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
    }


def to_llama(config: GPTConfig) -> dict[str, Any]:
    """config.json for LlamaForCausalLM, or for ArceeForCausalLM when the MLP has no gate."""
    name = family(config)
    return {
        "architectures": [f"{name.capitalize()}ForCausalLM"],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": ACTIVATIONS.get(config.mlp, "silu"),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # transformers up to 4; from 5 on it reads the next line
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tie_embeddings,
    }


def from_gpt2(path: Path, described: Mapping[str, Any]) -> GPTConfig:
    """Raises UserError for a field that is missing and for an option that our decoder does not have."""
    _require(path, described, "activation_function", "gelu_new", ("gelu_new", "gelu_pytorch_tanh", "relu2"))
    _require(path, described, "scale_attn_weights", True, (True,))
    _require(path, described, "scale_attn_by_inverse_layer_idx", False, (False,))
    return GPTConfig(
        vocab_size=_field(path, described, "vocab_size"),
        context=_field(path, described, "n_positions"),
        layers=_field(path, described, "n_layer"),
        heads=_field(path, described, "n_head"),
        width=_field(path, described, "n_embd"),
        mlp_width=described.get("n_inner"),
        mlp="relu2" if described.get("activation_function") == "relu2" else "gelu",
        tie_embeddings=bool(described.get("tie_word_embeddings", True)),
        norm_eps=float(described.get("layer_norm_epsilon", 1e-5)),
    )


def from_llama(path: Path, described: Mapping[str, Any]) -> GPTConfig:
    """Raises UserError for a field that is missing and for an option that our decoder does not have."""
    rope = described.get("rope_parameters") or described.get("rope_scaling") or {}
    _require(path, rope, "rope_type", rope.get("type", "default"), ("default",))
    gated, qwen = described["model_type"] != "arcee", described["model_type"] == "qwen3"
    activation = described.get("hidden_act", "silu" if gated else "relu2")
    _require(
        path, described, "hidden_act", activation, ("silu",) if gated else ("gelu_new", "gelu_pytorch_tanh", "relu2")
    )
    width, heads = _field(path, described, "hidden_size"), _field(path, described, "num_attention_heads")
    bias = bool(described.get("attention_bias", False))
    _require(path, described, "head_dim", 128 if qwen else None, (width // heads,) if qwen else (None, width // heads))
    _require(path, described, "attention_bias", False, (False,) if qwen else (False, True))
    _require(path, described, "mlp_bias", bias, (bias,))
    return GPTConfig(
        vocab_size=_field(path, described, "vocab_size"),
        context=_field(path, described, "max_position_embeddings"),
        layers=_field(path, described, "num_hidden_layers"),
        heads=heads,
        kv_heads=described.get("num_key_value_heads"),
        width=width,
        mlp_width=_field(path, described, "intermediate_size"),
        positions="rope",
        norm="rms",
        mlp="swiglu" if gated else "relu2" if activation == "relu2" else "gelu",
        bias=bias,
        qk_norm=qwen,
        tie_embeddings=bool(described.get("tie_word_embeddings", False)),
        rope_base=float(rope.get("rope_theta", described.get("rope_theta", 10000.0))),
        norm_eps=float(described.get("rms_norm_eps", 1e-6 if gated else 1e-5)),
    )


def _field(path: Path, described: Mapping[str, Any], name: str) -> int:
    value = described.get(name)
    if type(value) is not int:
        raise UserError(
            "a size is missing",
            where=f'{path}, field "{name}"',
            found=repr(value),
            expected="a number",
        )
    return value


def _require(path: Path, described: Mapping[str, Any], name: str, default: Any, known: tuple[Any, ...]) -> None:
    value = described.get(name, default)
    if value not in known:
        raise UserError(
            "the model uses an option that our decoder does not have",
            where=f'{path}, field "{name}"',
            found=repr(value),
            expected=" or ".join(repr(choice) for choice in known),
        )
