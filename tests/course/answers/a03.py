"""Answers to the twist of a03, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "both": {"cap": 2.3, "slope": 0.25},
    "sink": {"slope": 0.4, "sink": -0.5},
    "cap": {"cap": 1.4, "sink": 0.7},
}


def solve(twist):
    lines = ["match = per_group(q * q.shape[-1] ** -0.5, k.mT)"]
    if "cap" in twist:
        lines.append(f"match = {twist['cap']!r} * torch.tanh(match / {twist['cap']!r})")
    if "slope" in twist:
        lines += [
            "tokens, seen = match.shape[-2:]",
            "steps = torch.arange(seen - tokens, seen)[:, None] - torch.arange(seen)",
            f"price = {twist['slope']!r} * 2.0 ** -torch.arange(q.shape[1], dtype=q.dtype)",
            "match = match - price[:, None, None] * steps.abs()",
        ]
    lines.append("match = torch.where(visible, match, -torch.inf)")
    if "sink" not in twist:
        lines.append("weights = match.softmax(-1)")
    else:
        lines += [
            f"place = torch.full_like(match[..., :1], {twist['sink']!r})",
            "weights = torch.cat((match, place), -1).softmax(-1)[..., :-1]",
        ]
    lines.append("return per_group(torch.where(visible, weights, 0.0), v)")
    return {"twisted_attend": lines}


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("both", "2.3 * torch.tanh(match / 2.3)", "match", "the matches were not capped"),
    ("both", "match - price", "match + price", "distance were rewarded, not charged"),
    ("both", "match - price[:, None, None] * steps.abs()", "match", "the distance cost nothing"),
    ("both", "q * q.shape[-1] ** -0.5", "q",
     "the matches were not divided by the square root of the head width"),
    ("both", "steps.abs()", "steps", ""),  # what lies ahead is hidden, so this is right as well
]  # fmt: skip
