"""The decoder: attention with its projections, a block, the whole GPT and what is read off it, for every weight.

All weights travel as one flat array, in the order of the torch module's own parameters.
"""

import numpy as np
import torch
from torch.func import functional_call

from minirlhf.models.gpt import GPT, Block, GPTConfig
from minirlhf.models.heads import Classifier, RewardModel, ValueModel, last_real_index
from minirlhf.nn.attention import CausalSelfAttention, eager_attend, of_asked
from minirlhf.nn.rope import rotation_table
from minirlhf.reference import block, gpt, heads
from tests.reference.ideas.idea import Case, Idea, drawn, weighed

VOCAB, CONTEXT, CLASSES = 3, 4, ("no", "yes")
ONE = {"vocab_size": VOCAB, "context": CONTEXT, "layers": 1, "width": 4, "heads": 2, "mlp_width": 3}
TWO = ONE | {"layers": 2, "width": 2, "heads": 1, "mlp_width": 2}
LLAMA = {"positions": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "kv_heads": 1}
CONFIGS = {
    "gpt2": GPTConfig(**ONE),
    "gpt2, two layers": GPTConfig(**TWO),
    "llama": GPTConfig(**ONE, **LLAMA, tie_embeddings=False),
    "llama, two layers": GPTConfig(**TWO, **LLAMA, tie_embeddings=False),
    "qwen3": GPTConfig(**ONE, **LLAMA, qk_norm=True),
    "relu2": GPTConfig(**ONE, mlp="relu2"),
    "quickstart": GPTConfig(**ONE, positions="rope", norm="rms"),
}
TRUNKS = [name for name in sorted(CONFIGS) if "two" in name]  # what a head stands on: small, but nothing left out
NAMES = sorted(CONFIGS)


def shape_of(config: GPTConfig) -> block.Shape:
    return block.Shape(
        config.layers,
        config.heads,
        config.key_value_heads,
        config.positions,
        config.norm,
        config.mlp,
        config.rope_base,
        config.norm_eps,
    )


def sizes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def draw_weights(module: torch.nn.Module, rng: np.random.Generator) -> np.ndarray:
    """Large enough that every part matters; gains around 1."""
    pieces = [rng.normal(float(name.endswith("norm.weight")), 0.5, shape) for name, shape in sizes(module).items()]
    return np.concatenate([piece.ravel() for piece in pieces])


def unpacked(module: torch.nn.Module, flat):
    """The flat array, NumPy's or torch's, as a mapping from names to weights."""
    weights, start = {}, 0
    for name, shape in sizes(module).items():
        weights[name] = flat[start : start + int(np.prod(shape))].reshape(shape)
        start += int(np.prod(shape))
    return weights


def packed(module: torch.nn.Module, gradients) -> np.ndarray:
    assert set(gradients) == set(sizes(module)), "a weight without a derived gradient, or the other way round"
    return np.concatenate([gradients[name].ravel() for name in sizes(module)])


def attention_of(config: GPTConfig) -> CausalSelfAttention:
    eps = config.norm_eps if config.qk_norm else None
    return CausalSelfAttention(config.width, config.heads, config.key_value_heads, config.bias, qk_norm_eps=eps)


def make(kind: str, name: str) -> torch.nn.Module:
    """The torch module whose weights are drawn; what it starts with does not matter."""
    trunk = GPT(CONFIGS[name])
    if kind == "gpt":
        return trunk
    return {
        "block": lambda: Block(CONFIGS[name], 0, eager_attend),
        "attention": lambda: attention_of(CONFIGS[name]),
        "reward": lambda: RewardModel(trunk),
        "value": lambda: ValueModel(trunk),
        "classifier": lambda: Classifier(trunk, CLASSES),
    }[kind]()


MODULES = {(kind, name): make(kind, name) for name in NAMES for kind in ("attention", "block", "gpt")} | {
    (kind, name): make(kind, name) for name in TRUNKS for kind in ("reward", "value", "classifier")
}


def padded(size, rng, rows: int, tokens: int) -> np.ndarray:
    """attention_mask [B T]: real tokens with padding left or right of them, at least one real."""
    places = np.arange(tokens)
    starts = np.array([size(0, tokens - 1) for _ in range(rows)])[:, None]
    return places >= starts if size(0, 1) else places <= starts


def layer_case(kind: str):
    def build(size, rng) -> Case:
        name, tokens = NAMES[size(0, len(NAMES) - 1)], size(1, 4)
        flat, x, dout = draw_weights(MODULES[kind, name], rng), *rng.normal(size=(2, tokens, CONFIGS[name].width))
        return name, flat, x, padded(size, rng, 1, tokens)[0], dout

    return drawn(build)


def model_case(kind: str, *outputs: int):
    """outputs: the shape of what is weighed, per row (True stands for the number of tokens)."""

    def build(size, rng) -> Case:
        names = NAMES if kind == "gpt" else TRUNKS
        name, rows, tokens = names[size(0, len(names) - 1)], size(1, 2), size(1, 3)
        flat, ids = draw_weights(MODULES[kind, name], rng), rng.integers(0, VOCAB, (rows, tokens))
        out = [tokens if n is True else n for n in outputs]
        return name, flat, ids, padded(size, rng, rows, tokens), rng.normal(size=(rows, *out))

    return drawn(build)


def layer_formula(kind: str, function):
    def formula(name, flat, x, mask):
        places = gpt.places_of(np.zeros(len(x), dtype=np.int64), mask)
        return function(unpacked(MODULES[kind, name], flat), shape_of(CONFIGS[name]), x, places)

    return formula


def attention_weights(weights):
    return {f"attention.{name}": weight for name, weight in weights.items()}


def attention_formula(name, flat, x, mask):
    places = gpt.places_of(np.zeros(len(x), dtype=np.int64), mask)
    weights = attention_weights(unpacked(MODULES["attention", name], flat))
    return block.causal_self_attention(weights, shape_of(CONFIGS[name]), x, places)


def attention_gradient(name, flat, x, mask, dout):
    module, places = MODULES["attention", name], gpt.places_of(np.zeros(len(x), dtype=np.int64), mask)
    weights = attention_weights(unpacked(module, flat))
    dx, gradients = block.causal_self_attention_grad(weights, shape_of(CONFIGS[name]), x, places, dout)
    return packed(module, {key.removeprefix("attention."): g for key, g in gradients.items()}), dx


def block_gradient(name, flat, x, mask, dout):
    module, places = MODULES["block", name], gpt.places_of(np.zeros(len(x), dtype=np.int64), mask)
    dx, gradients = block.block_grad(unpacked(module, flat), shape_of(CONFIGS[name]), x, places, dout)
    return packed(module, gradients), dx


def torch_layer(kind: str):
    def code(name, flat, x, mask):
        config, module = CONFIGS[name], MODULES[kind, name]
        rotation = None
        if config.positions == "rope":
            cos, sin = rotation_table(CONTEXT, config.head_width, config.rope_base, x.dtype, x.device)
            positions = (mask.cumsum(0) - 1).clamp(min=0)
            rotation = cos[positions], sin[positions]
        visible = torch.ones(len(x), len(x), dtype=torch.bool).tril() & mask
        return functional_call(module, unpacked(module, flat), (x[None], visible, rotation, None))[0]

    return code


def split_head(weights):
    """The weights of the trunk, and those of the head on it."""
    trunk = {key.removeprefix("trunk."): weight for key, weight in weights.items() if key.startswith("trunk.")}
    return trunk, weights["head.weight"], weights["head.bias"]


def model_formula(kind: str, read):
    """read(x [B T D], mask, weight, bias) on what the trunk makes of each row."""

    def formula(name, flat, ids, mask):
        trunk, weight, bias = split_head(unpacked(MODULES[kind, name], flat))
        rows = zip(ids, mask, strict=True)
        x = np.stack([gpt.hidden(trunk, shape_of(CONFIGS[name]), row, seen)[0] for row, seen in rows])
        return read(x, mask, weight, bias)

    return formula


def model_gradient(kind: str, read_grad):
    """read_grad(x, mask, weight, dout) -> (dx, dweight, dbias), carried on through the trunk."""

    def gradient(name, flat, ids, mask, dout):
        module, shape = MODULES[kind, name], shape_of(CONFIGS[name])
        trunk, weight, _ = split_head(unpacked(module, flat))
        made = [gpt.hidden(trunk, shape, row, seen) for row, seen in zip(ids, mask, strict=True)]
        dx, dweight, dbias = read_grad(np.stack([x for x, _ in made]), mask, weight, dout)
        total = {key: np.zeros(value.shape) for key, value in trunk.items()}
        for (_, taken_in), row, seen, d in zip(made, ids, mask, dx, strict=True):
            for key, part in gpt.hidden_grad(trunk, shape, row, taken_in, d, seen).items():
                total[key] += part
        named = {f"trunk.{key}": value for key, value in total.items()}
        return (packed(module, named | {"head.weight": dweight, "head.bias": dbias}),)

    return gradient


def hidden_numbers(weights, shape, x, places):
    """The squared ReLU's slope has a kink where one of these is 0; the other MLPs are smooth."""
    if shape.mlp != "relu2":
        return [np.zeros(0)]
    middle = x + block.causal_self_attention(weights, shape, block.norm(weights, "attention_norm", shape, x), places)
    w_hidden, b_hidden, *_ = block.two_layers(weights)
    return [block.norm(weights, "mlp_norm", shape, middle) @ w_hidden.T + b_hidden]


def gpt_kinks(name, flat, ids, mask):
    weights, shape, found = unpacked(MODULES["gpt", name], flat), shape_of(CONFIGS[name]), []
    for row, seen in zip(ids, mask, strict=True):
        _, taken_in = gpt.hidden(weights, shape, row, seen)
        for layer, x in enumerate(taken_in[:-1]):
            found += hidden_numbers(gpt.of_layer(weights, layer), shape, x, gpt.places_of(row, seen))
    return found


def gpt_formula(name, flat, ids, mask):
    weights, shape = unpacked(MODULES["gpt", name], flat), shape_of(CONFIGS[name])
    return np.stack([gpt.gpt(weights, shape, row, seen) for row, seen in zip(ids, mask, strict=True)])


def gpt_gradient(name, flat, ids, mask, dout):
    module, shape = MODULES["gpt", name], shape_of(CONFIGS[name])
    weights = unpacked(module, flat)
    total = {key: np.zeros(value.shape) for key, value in weights.items()}
    for row, seen, dlogits in zip(ids, mask, dout, strict=True):
        for key, part in gpt.gpt_grad(weights, shape, row, dlogits, seen).items():
            total[key] += part
    return (packed(module, total),)


def torch_model(kind: str):
    def code(name, flat, ids, mask):
        module = MODULES[kind, name]
        return functional_call(module, unpacked(module, flat), (ids, mask), tie_weights=False)

    return code


def reading_case(size, rng) -> Case:
    rows, tokens, width = size(1, 3), size(1, 4), size(1, 3)
    return rng.normal(size=(rows, tokens, width)), padded(size, rng, rows, tokens), rng.normal(size=(rows, width))


DECODER: tuple[Idea, ...] = (
    weighed(
        "causal_self_attention",
        layer_case("attention"),
        attention_formula,
        attention_gradient,
        torch_layer("attention"),
        (1, 2),
    ),
    weighed(
        "block",
        layer_case("block"),
        layer_formula("block", block.block),
        block_gradient,
        torch_layer("block"),
        (1, 2),
        kinks=layer_formula("block", hidden_numbers),
    ),
    weighed("gpt", model_case("gpt", True, VOCAB), gpt_formula, gpt_gradient, torch_model("gpt"), (1,), gpt_kinks),
    weighed(
        "last_real",
        drawn(reading_case),
        heads.last_real,
        lambda x, mask, dout: (heads.last_real_grad(x, mask, dout),),
        lambda x, mask: of_asked(x, last_real_index(mask))[:, 0],
        (0,),
    ),
    weighed(
        "reward_model",
        model_case("reward"),
        model_formula("reward", heads.reward_model),
        model_gradient("reward", heads.reward_model_grad),
        torch_model("reward"),
        (1,),
    ),
    weighed(
        "value_model",
        model_case("value", True),
        model_formula("value", lambda x, mask, weight, bias: heads.value_model(x, weight, bias)),
        model_gradient("value", lambda x, mask, weight, dout: heads.value_model_grad(x, weight, dout)),
        torch_model("value"),
        (1,),
    ),
    weighed(
        "classifier",
        model_case("classifier", len(CLASSES)),
        model_formula("classifier", heads.classifier),
        model_gradient("classifier", heads.classifier_grad),
        torch_model("classifier"),
        (1,),
    ),
)
