"""Answers to the twist of a02, written from its text in NumPy, as a student must.

They cannot use torch; that their formula and the kit's are right, tests/course/test_own_network.py proves by autograd.
"""

VARIANTS = {
    "bend": {"leak": 0.2, "bend": 2.5, "smooth": 0.15, "calm": 0.3},
    "top": {"leak": 0.1, "top": 0.8, "smooth": 0.25, "calm": 0.1},
}


def solve(twist):
    leak, smooth, calm = (twist[name] for name in ("leak", "smooth", "calm"))
    if "bend" in twist:
        bend = twist["bend"]
        activation = [
            f"h = {leak!r} * z + (1 - {leak!r}) * np.log1p(np.exp({bend!r} * z)) / {bend!r}",
            f"opened = 1 / (1 + np.exp(-{bend!r} * z))",
            f"return h, dout * ({leak!r} + (1 - {leak!r}) * opened)",
        ]
    else:
        top = twist["top"]
        activation = [
            f"h = np.where(z > 0, {top!r} * np.tanh(z / {top!r}), {leak!r} * z)",
            f"return h, dout * np.where(z > 0, 1 / np.cosh(z / {top!r}) ** 2, {leak!r})",
        ]
    return {
        "own_activation": activation,
        "own_network": [
            "z = linear(x, w_hidden, b_hidden)",
            "h, _ = own_activation(z, z)",
            "y = linear(h, w_out, b_out)",
            "log_p = log_softmax(y)",
            "size = y[:, :1] - log_p[:, :1]",
            f"target = np.full(y.shape, {smooth!r} / y.shape[1])",
            f"target[np.arange(len(y)), targets] += 1 - {smooth!r}",
            f"loss = (-(target * log_p).sum(axis=1) + {calm!r} * size[:, 0] ** 2).mean()",
            f"dy = (softmax(y) * (1 + 2 * {calm!r} * size) - target) / len(y)",
            "dh, dw_out, db_out = linear_grad(h, w_out, dy)",
            "_, dz = own_activation(z, dh)",
            "dx, dw_hidden, db_hidden = linear_grad(x, w_hidden, dz)",
            "return loss, dx, dw_hidden, db_hidden, dw_out, db_out",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("bend", "dout * (0.2 + (1 - 0.2) * opened)", "dout", "dout did not meet the slope at all"),
    ("top", "h, dout * np.where", "h, np.where", "the slope of f stood alone: dout is missing"),
    ("top", "np.tanh(z / 0.8), 0.1 * z)\n    return h, dout * np.where(z > 0, 1 / np.cosh(z / 0.8) ** 2, 0.1)",
     "np.tanh(z / 0.8), 0)\n    return h, dout * np.where(z > 0, 1 / np.cosh(z / 0.8) ** 2, 0)",
     "the leak were missing in f and in its slope"),
    ("bend", "dout * (0.2 + (1 - 0.2) * opened)", "dout * opened", "the leak were missing in the slope"),
    ("bend", "(1 - 0.2) * opened", "(1 - 0.2) * 2.5 * opened",
     "the chain rule's factor, the number before z, were taken twice or not divided out"),
    ("bend", "np.exp(-2.5 * z)", "np.exp(-z)", "the slope were that of the bend at z, not at the number times z"),
    ("top", "** 2, 0.1)", "** 2, 0)", "the negative side had no slope"),
    ("top", "** 2, 0.1)", "** 2, 1)", "the negative side had slope 1"),
    ("top", "1 / np.cosh(z / 0.8) ** 2, 0.1)", "1 / np.cosh(z / 0.8) ** 2 / 0.8, 0.1)",
     "the inner factor 1 / top were there and the outer factor top not"),
    ("top", "1 / np.cosh(z / 0.8) ** 2", "1 - np.tanh(z / 0.8) ** 2", ""),
    ("top", "target[np.arange(len(y)), targets] += 1 - 0.25", "target = np.eye(y.shape[1])[targets]",
     "the target were not softened"),
    ("top", "0.25 / y.shape[1])\n    target[np.arange(len(y)), targets] += 1 - 0.25",
     "0.25 / (y.shape[1] - 1))\n    target[np.arange(len(y)), targets] = 1 - 0.25",
     "the true class had no share of what all classes get"),
    ("bend", "size = y[:, :1] - log_p[:, :1]", "size = 0 * y[:, :1]", "the outputs were not kept calm"),
    ("bend", "softmax(y) * (1 + 2 * 0.3 * size)", "softmax(y)",
     "the square kept the loss calm and did not reach the gradient"),
    ("top", "2 * 0.1 * size", "0.1 * size", "the slope of the square lacked its 2"),
    ("top", "- target) / len(y)", "- target)", "the gradients were those of the sum over the rows, not of the mean"),
    ("bend", "_, dz = own_activation(z, dh)", "dz = dh", "the gradient went past the activation"),
]  # fmt: skip
