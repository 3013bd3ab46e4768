"""Answers to the twist of a04, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "mix": {"power": 1.5, "gain": 0.7, "keep": 0.8, "mix": 0.3, "window": 3.0, "sinks": 1.0},
    "keep": {"power": 2.8, "gain": 1.3, "keep": 0.6, "window": 2.0, "sinks": 2.0},
}


def solve(twist):
    keep = repr(twist["keep"])
    if "mix" in twist:
        block = [
            "listened, thought = attention(attention_norm(x)), mlp(mlp_norm(x))",
            f"return {keep} * x + {twist['mix']!r} * listened + (1 - {twist['mix']!r}) * thought",
        ]
    else:
        block = [
            f"h = {keep} * x + attention(attention_norm(x))",
            f"return {keep} * h + mlp(mlp_norm(h))",
        ]
    return {
        "twisted_norm": [
            f"m = (x.abs() ** {twist['power']!r}).mean(-1, keepdim=True) + eps",
            f"return x / m ** (1 / {twist['power']!r}) * ({twist['gain']!r} + weight)",
        ],
        "twisted_block": block,
        "twisted_visible": [
            "real = attention_mask.long()",
            "place = real.cumsum(1) - real",
            "columns = torch.arange(seen + tokens)",
            "before = columns <= columns[seen:, None]",
            f"near = place[:, seen:, None] - place[:, None, :] < {int(twist['window'])}",
            f"sink = place[:, None, :] < {int(twist['sinks'])}",
            "return (attention_mask[:, None, :] & before & (near | sink)).unsqueeze(1)",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("mix", "1.5", "2", "this were the RMS norm: the power is 2"),
    ("keep", "(1 / 2.8)", "0.5", "a square root were taken of the mean, whatever the power"),
    ("keep", "m ** (1 / 2.8)", "m", "the mean's root were not taken"),
    ("mix", "(0.7 + weight)", "weight", "the result were multiplied by the weight alone"),
    ("mix", "0.8 * x", "x", "the stream were kept whole"),
    ("keep", "0.6 * ", "", "the stream were kept whole"),
    ("mix", "0.3 * listened + (1 - 0.3) * thought", "(1 - 0.3) * listened + 0.3 * thought",
     "the shares of attention and MLP changed places"),
    ("mix", "listened, thought = attention(attention_norm(x)), mlp(mlp_norm(x))",
     "listened = attention(attention_norm(x)); thought = mlp(mlp_norm(0.8 * x + 0.3 * listened))",
     "the MLP read what attention had added"),
    ("keep", "0.6 * h", "h", "the stream were kept whole at the second addition"),
    ("keep", "mlp_norm(h)", "mlp_norm(x)", "the MLP read x, without what attention adds"),
    ("mix", "(near | sink)", "True", "there were no window: everything before is seen"),
    ("keep", "(near | sink)", "near", "the first tokens were not seen from everywhere"),
    ("mix", "< 3", "<= 3", "the window were one token longer"),
    ("keep", "real.cumsum(1) - real", "torch.arange(seen + tokens).expand_as(real)", "padding took up places"),
    ("keep", "real.cumsum(1) - real", "(attention_mask.cumsum(1) - 1) + (~attention_mask)", ""),  # the same places
]  # fmt: skip
