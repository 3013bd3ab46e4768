"""Answers to the twist of a10, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "down": {"fall": 0.5, "rate": 0.8, "low": 0.15, "high": 0.4, "down": 0.3},
    "most": {"fall": 0.3, "rate": 0.6, "low": 0.25, "high": 0.35, "most": 2.5},
}


def solve(twist):
    trace = "gae_lambda"
    if "down" in twist:
        trace = f"torch.where(deltas < 0, gae_lambda * {twist['down']!r} + 0 * r, gae_lambda)"
    loss = [
        "ratio = (log_probs - old_log_probs).masked_fill(~response_mask, 0.0).exp()",
        "advantages = advantages.masked_fill(~response_mask, 0.0)",
        f"clipped = ratio.clamp({1 - twist['low']!r}, {1 + twist['high']!r})",
        "worth = torch.minimum(ratio * advantages, clipped * advantages)",
    ]
    if "most" in twist:
        loss.append(f"worth = torch.where(advantages < 0, worth.maximum({twist['most']!r} * advantages), worth)")
    return {
        "twisted_gae": [
            "r, v = (x.masked_fill(~response_mask, 0.0) for x in (rewards, values))",
            f"gammas = 1 - {twist['fall']!r} * {twist['rate']!r} ** torch.arange(r.shape[1], dtype=r.dtype)",
            "after = torch.nn.functional.pad(v[:, 1:], (0, 1))",
            "deltas = r + gammas * after - v",
            f"fades = gammas * {trace}",
            "columns, coming = [], 0.0",
            "for delta, fade in reversed(list(zip(deltas.T, fades.expand_as(deltas).T))):",
            "    coming = delta + fade * coming",
            "    columns.insert(0, coming)",
            "found = torch.stack(columns, 1).masked_fill(~response_mask, 0.0)",
            "return found, found + v",
        ],
        "twisted_policy_loss": [*loss, "return -masked_mean(worth, response_mask)"],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("down", "1 - 0.5 * 0.8 **", "1 - 0.0 * 0.8 **", "the discount were 1 everywhere"),
    ("down", "* 0.8 ** torch.arange(r.shape[1], dtype=r.dtype)", "* torch.ones(r.shape[1], dtype=r.dtype)",
     "the discount did not change on the way: its power t is missing"),
    ("most", "torch.arange(r.shape[1]", "torch.arange(1, 1 + r.shape[1]",
     "token t were discounted by γ_{t+1}; t counts from 0"),
    ("most", "fades = gammas * gae_lambda", "fades = gammas * 0 + gae_lambda",
     "only the next value were discounted, not the sum"),
    ("down", "gae_lambda * 0.3 + 0", "gae_lambda + 0", "λ were the same for negative TD errors"),
    ("down", "deltas < 0", "deltas > 0", "the factor on λ met the positive TD errors"),
    ("most", "clamp(0.75, 1.35)", "clamp(0.65, 1.25)", "the two edges of the clip changed places"),
    ("down", "clamp(0.85, 1.4)", "clamp(0.85, 1.15)", "the lower edge's number stood at both edges"),
    ("down", "clamp(0.85, 1.4)", "clamp(0.6, 1.4)", "the upper edge's number stood at both edges"),
    ("most", "advantages < 0, worth.maximum", "advantages > 9, worth.maximum", "negative advantages had no bound"),
    ("most", "advantages < 0, worth.maximum", "advantages == advantages, worth.maximum",
     "the bound met positive advantages too"),
]  # fmt: skip
