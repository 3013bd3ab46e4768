"""Answers to the twist of a06, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "most": {"window": 4.0, "charge": 0.9, "fade": 0.6, "share": 0.1, "warmth": 2.0, "most": 1.17},
    "power": {"window": 5.0, "charge": 1.4, "fade": 0.74, "share": 0.15, "warmth": 1.7, "power": 2.2},
}


def solve(twist):
    power = f" ** {twist['power']!r}" if "power" in twist else ""
    bound = f".clamp(max={twist['most']!r})" if "most" in twist else ""
    return {
        "twisted_charge": [
            f"newest_first = ids.flip(1)[:, :{int(twist['window'])}]",
            "d = torch.arange(1, newest_first.shape[1] + 1, dtype=logits.dtype)",
            f"costs = ({twist['charge']!r} * {twist['fade']!r} ** (d - 1)).expand(newest_first.shape)",
            "owed = torch.zeros_like(logits).scatter_add(1, newest_first, costs)",
            f"return logits - owed{bound}",
        ],
        "twisted_log_probs": [
            "p = logits.softmax(dim=-1)",
            f"line = {twist['share']!r} * p.amax(dim=-1, keepdim=True){power}",
            "kept = logits.masked_fill(p < line, -torch.inf)",
            f"return torch.log_softmax(kept / {twist['warmth']!r}, dim=-1)",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("most", "logits - owed", "logits + owed", "logits rose where they should fall"),
    ("power", "[:, :5]", "[:, :99]", "the whole text were charged for, not its newest places"),
    ("most", "[:, :4]", "[:, :99]", "the whole text were charged for, not its newest places"),
    ("most", "0.6 ** (d - 1)", "1.0 ** d", "the charge did not fade"),
    ("power", "** (d - 1)", "** d", "the newest place were faded once already; d is 1 there"),
    ("power", "** (d - 1)", "** (d.flip(0) - 1)", "d counted from the oldest place that is charged for"),
    ("power", "scatter_add(1, newest_first, costs)", "scatter_reduce(1, newest_first, costs, 'amax')",
     "a token were charged for once, however often it stands there"),
    ("most", ".clamp(max=1.17)", "", "the charge had no bound"),
    ("power", "p.amax(dim=-1, keepdim=True) ** 2.2", "1.0",
     "the share were held against 1, not against the likeliest token"),
    ("most", "logits.softmax", "(logits / 2.0).softmax", "the temperature had a say in the cut"),
    ("most", "kept / 2.0", "kept", "what has stayed were drawn from at temperature 1"),
    ("most", "p < line", "p < 0", "nothing were cut off"),
    ("power", " ** 2.2", "", "p_max stood there without its power"),
    ("power", "p < line", "p <= line", ""),
]  # fmt: skip
