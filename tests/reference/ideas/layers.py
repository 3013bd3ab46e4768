"""The layers: what a decoder is built of."""

import torch
from torch.func import functional_call

from minirlhf.nn.attention import eager_attend, per_group
from minirlhf.nn.mlp import GeluMLP, SquaredReluMLP, SwiGLU, gelu, relu2
from minirlhf.nn.norm import LayerNorm, Rescale, RMSNorm, Standardise
from minirlhf.nn.rope import rotate, rotation_table
from minirlhf.objectives.likelihood import log_probs_of
from minirlhf.reference import attention, dropout, embedding, linear, mlp, network, norm, penalties, rope, softmax
from tests.reference.ideas.idea import Case, Idea, drawn, weighed

F = torch.nn.functional


def elementwise(size, rng) -> Case:
    shape = (size(1, 3), size(1, 5))
    return rng.normal(0, 2, shape), rng.normal(size=shape)


def with_temperature(size, rng) -> Case:
    x, dout = elementwise(size, rng)
    return x, float(rng.uniform(0.3, 3)), dout


def linear_case(size, rng) -> Case:
    rows, inner, outer = size(1, 4), size(1, 5), size(1, 5)
    weights = rng.normal(size=(outer, inner)), rng.normal(size=outer)
    return rng.normal(size=(rows, inner)), *weights, rng.normal(size=(rows, outer))


def embedding_case(size, rng) -> Case:
    vocab, width, tokens = size(1, 4), size(1, 4), size(1, 6)
    return rng.normal(size=(vocab, width)), rng.integers(0, vocab, tokens), rng.normal(size=(tokens, width))


def norm_case(size, rng) -> Case:
    tokens, width = size(1, 3), size(2, 6)
    x = 10 ** rng.uniform(-1, 1) * rng.normal(size=(tokens, width))
    return x, rng.normal(size=width), rng.normal(size=width), rng.normal(size=(tokens, width))


def without_bias(size, rng) -> Case:
    x, weight, _, dout = norm_case(size, rng)
    return x, weight, dout


def bare(size, rng) -> Case:
    x, _, _, dout = norm_case(size, rng)
    return x, 1e-5, dout


def two_layer_case(size, rng) -> Case:
    tokens, width, hidden = size(1, 3), size(1, 4), size(1, 5)
    weights = [rng.normal(size=shape) for shape in ((hidden, width), (hidden,), (width, hidden), (width,))]
    return rng.normal(size=(tokens, width)), *weights, rng.normal(size=(tokens, width))


def network_case(size, rng) -> Case:
    rows, inner, hidden, classes = size(1, 4), size(1, 3), size(1, 4), size(1, 4)
    weights = [rng.normal(size=shape) for shape in ((hidden, inner), (hidden,), (classes, hidden), (classes,))]
    return rng.normal(size=(rows, inner)), *weights, rng.integers(0, classes, rows)


def swiglu_case(size, rng) -> Case:
    tokens, width, hidden = size(1, 3), size(1, 4), size(1, 5)
    weights = [rng.normal(size=shape) for shape in ((hidden, width), (hidden, width), (width, hidden))]
    return rng.normal(size=(tokens, width)), *weights, rng.normal(size=(tokens, width))


def rope_case(size, rng) -> Case:
    heads, tokens, half = size(1, 2), size(1, 4), size(1, 3)
    shape = (heads, tokens, 2 * half)
    return rng.normal(size=shape), rng.integers(0, 50, tokens), rng.normal(size=shape)


def attention_case(size, rng) -> Case:
    """Any rows of `visible`, also ones that see nothing; with as many rows as columns often the causal ones."""
    groups, group, tokens, seen, width = size(1, 2), size(1, 3), size(1, 4), size(1, 4), size(1, 3)
    visible = rng.random((tokens, seen)) < rng.choice([0.3, 0.8, 1.0])
    if tokens == seen and size(0, 1):
        visible = attention.causal(rng.random(tokens) < 0.7)
    q, k, v = (rng.normal(size=(n, t, width)) for n, t in ((groups * group, tokens), (groups, seen), (groups, seen)))
    return q, k, v, visible, rng.normal(size=q.shape)


def per_group_case(size, rng) -> Case:
    groups, group, a, b, c = size(1, 2), size(1, 3), size(1, 3), size(1, 3), size(1, 3)
    x, y = rng.normal(size=(groups * group, a, b)), rng.normal(size=(groups, b, c))
    return x, y, rng.normal(size=(groups * group, a, c))


def dropout_case(size, rng) -> Case:
    x, dout = elementwise(size, rng)
    rate = float(rng.uniform(0, 0.9))
    return x, rng.random(x.shape) >= rate, rate, dout


def penalty_case(size, rng) -> Case:
    return rng.normal(size=(size(1, 4), size(1, 4))), float(rng.uniform(0, 2))


def torch_rotate(x, positions):
    cos, sin = rotation_table(50, x.shape[-1], 10000.0, torch.float64, torch.device("cpu"))
    return rotate(x[None], (cos[positions], sin[positions]))[0]


def torch_norm(module, x, *weights):
    named = dict(zip(("weight", "bias"), weights, strict=False))
    return functional_call(module, named, (x,))


LAYERS: tuple[Idea, ...] = (
    weighed(
        "softmax",
        drawn(elementwise),
        softmax.softmax,
        lambda z, dout: (softmax.softmax_grad(softmax.softmax(z), dout),),
        lambda z: z.softmax(-1),
        (0,),
    ),
    weighed(
        "log_softmax with a temperature",
        drawn(with_temperature),
        softmax.log_softmax,
        lambda z, t, dout: (softmax.log_softmax_grad(z, dout, t),),
        log_probs_of,
        (0,),
    ),
    weighed(
        "linear",
        drawn(linear_case),
        linear.linear,
        lambda x, w, b, dout: linear.linear_grad(x, w, dout),
        F.linear,
        (0, 1, 2),
    ),
    weighed(
        "embedding",
        drawn(embedding_case),
        embedding.embedding,
        lambda table, ids, dout: (embedding.embedding_grad(table, ids, dout),),
        lambda table, ids: F.embedding(ids, table),
        (0,),
    ),
    weighed(
        "layer_norm",
        drawn(norm_case),
        norm.layer_norm,
        lambda x, w, b, dout: norm.layer_norm_grad(x, w, dout),
        lambda x, w, b: torch_norm(LayerNorm(x.shape[-1]), x, w, b),
        (0, 1, 2),
    ),
    weighed(
        "rms_norm",
        drawn(without_bias),
        norm.rms_norm,
        lambda x, w, dout: norm.rms_norm_grad(x, w, dout),
        lambda x, w: torch_norm(RMSNorm(x.shape[-1]), x, w),
        (0, 1),
    ),
    weighed(
        "standardise",
        drawn(bare),
        lambda x, eps: norm.standardise(x, eps)[0],
        lambda x, eps, dout: (norm.standardise_grad(*norm.standardise(x, eps), dout),),
        Standardise.apply,
        (0,),
    ),
    weighed(
        "rescale",
        drawn(bare),
        lambda x, eps: norm.rescale(x, eps)[0],
        lambda x, eps, dout: (norm.rescale_grad(*norm.rescale(x, eps), dout),),
        Rescale.apply,
        (0,),
    ),
    weighed(
        "gelu, tanh form",
        drawn(elementwise),
        mlp.gelu,
        lambda x, dout: (mlp.gelu_grad(x, dout),),
        gelu,
        (0,),
    ),
    weighed(
        "gelu, exact",
        drawn(elementwise),
        mlp.gelu_exact,
        lambda x, dout: (mlp.gelu_exact_grad(x, dout),),
        F.gelu,
        (0,),
    ),
    weighed("swish", drawn(elementwise), mlp.swish, lambda x, dout: (mlp.swish_grad(x, dout),), F.silu, (0,)),
    weighed(
        "gelu_mlp",
        drawn(two_layer_case),
        mlp.gelu_mlp,
        lambda x, w, b, w_out, b_out, dout: mlp.gelu_mlp_grad(x, w, b, w_out, dout),
        lambda x, w, b, w_out, b_out: functional_call(
            GeluMLP(x.shape[-1], len(b), True),
            {"to_hidden.weight": w, "to_hidden.bias": b, "to_out.weight": w_out, "to_out.bias": b_out},
            (x,),
        ),
        (0, 1, 2, 3, 4),
    ),
    weighed(
        "relu",
        drawn(elementwise),
        network.relu,
        lambda z, dout: (network.relu_grad(z, dout),),
        F.relu,
        (0,),
        kinks=lambda z: [z],
    ),
    Idea(
        "network_loss",
        drawn(network_case),
        network.network_loss,
        network.network_loss_grad,
        lambda x, w, b, w_out, b_out, targets: F.cross_entropy(
            F.linear(F.relu(F.linear(x, w, b)), w_out, b_out), targets
        ),
        (0, 1, 2, 3, 4),
        kinks=lambda x, w, b, w_out, b_out, targets: [x @ w.T + b],
    ),
    weighed(
        "relu2",
        drawn(elementwise),
        mlp.relu2,
        lambda x, dout: (mlp.relu2_grad(x, dout),),
        relu2,
        (0,),
        kinks=lambda x: [x],
    ),
    weighed(
        "squared_relu_mlp",
        drawn(two_layer_case),
        mlp.squared_relu_mlp,
        lambda x, w, b, w_out, b_out, dout: mlp.squared_relu_mlp_grad(x, w, b, w_out, dout),
        lambda x, w, b, w_out, b_out: functional_call(
            SquaredReluMLP(x.shape[-1], len(b), True),
            {"to_hidden.weight": w, "to_hidden.bias": b, "to_out.weight": w_out, "to_out.bias": b_out},
            (x,),
        ),
        (0, 1, 2, 3, 4),
        kinks=lambda x, w, b, w_out, b_out: [x @ w.T + b],  # the slope of the slope jumps where a hidden number is 0
    ),
    weighed(
        "swiglu",
        drawn(swiglu_case),
        mlp.swiglu,
        mlp.swiglu_grad,
        lambda x, gate, up, out: functional_call(
            SwiGLU(x.shape[-1], len(gate), False),
            {"to_gate_and_up.weight": torch.cat((gate, up)), "to_out.weight": out},
            (x,),
        ),
        (0, 1, 2, 3),
    ),
    weighed(
        "rotate",
        drawn(rope_case),
        rope.rotate,
        lambda x, positions, dout: (rope.rotate_grad(positions, dout),),
        torch_rotate,
        (0,),
    ),
    weighed(
        "per_group",
        drawn(per_group_case),
        attention.per_group,
        attention.per_group_grad,
        lambda x, y: per_group(x[None], y[None])[0],
        (0, 1),
    ),
    weighed(
        "eager_attend",
        drawn(attention_case),
        attention.eager_attend,
        attention.eager_attend_grad,
        lambda q, k, v, visible: eager_attend(q[None], k[None], v[None], visible[None, None])[0],
        (0, 1, 2),
    ),
    weighed(
        "dropout",
        drawn(dropout_case),
        dropout.dropout,
        lambda x, kept, rate, dout: (dropout.dropout_grad(kept, rate, dout),),
        lambda x, kept, rate: x * kept / (1 - rate),
        (0,),
    ),
    Idea(
        "l2_penalty",
        drawn(penalty_case),
        penalties.l2_penalty,
        lambda w, strength: (penalties.l2_penalty_grad(w, strength),),
        lambda w, strength: strength / 2 * w.square().sum(),
        (0,),
    ),
    Idea(
        "l1_penalty",
        drawn(penalty_case),
        penalties.l1_penalty,
        lambda w, strength: (penalties.l1_penalty_grad(w, strength),),
        lambda w, strength: strength * w.abs().sum(),
        (0,),
        kinks=lambda w, strength: [w],
    ),
)
