"""Answers to the twist of a07, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "fade": {"share": 0.4, "opening": 2.5, "fade": 0.7, "smooth": 0.1, "warm": 1.6},
    "recent": {"share": 0.66, "opening": 1.8, "recent": 0.5, "smooth": 0.25, "settle": 0.15},
}


def solve(twist):
    number = twist.get("fade", twist.get("recent"))
    turn = "begins.cumsum(1) - 1" if "fade" in twist else "begins.sum(1, keepdim=True) - begins.cumsum(1)"
    lines = [
        "there = weights > 0",
        "z, y, w = logits[there], targets[there], weights[there]",
        f"log_p = torch.log_softmax(z / {twist.get('warm', 1)!r}, -1)",
        "hit = log_p.gather(1, y[:, None])[:, 0]",
        f"each = -(1 - {twist['smooth']!r}) * hit - {twist['smooth']!r} * log_p.mean(1)",
    ]
    if "settle" in twist:
        lines.append(f"each = each + {twist['settle']!r} * z.logsumexp(1) ** 2")
    return {
        "twisted_weights": [
            "before = torch.nn.functional.pad(loss_mask, (1, 0))[:, :-1]",
            "begins = loss_mask & ~before",
            "number = begins.cumsum(1)",
            "same = (number[:, :, None] == number[:, None, :]) & loss_mask[:, None, :]",
            "n = same.sum(2).double()",
            f"w = n.clamp(min=1) ** -{twist['share']!r}",
            f"w = w * {number!r} ** ({turn}).double()",
            f"w = w * (1 + {twist['opening']!r} * begins.double() - begins.double())",
            "return w * loss_mask",
        ],
        "twisted_loss": [*lines, "return (w * each).sum() / w.sum()"],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("fade", "** -0.4", "** -0.0", "the length of a turn did not matter"),
    ("recent", "** -0.66", "** -1.0", "the weights were divided by n, not by a power of it"),
    ("fade", "1 + 2.5 * begins.double() - begins.double()", "1.0",
     "the first token of a turn weighed as much as the others"),
    ("fade", "1 + 2.5 * begins.double() - begins.double()",
     "1 + 1.5 * (loss_mask & ~torch.nn.functional.pad(loss_mask, (0, 1))[:, 1:])",
     "the last token of a turn was meant, not the first"),
    ("recent", "0.5 ** (begins", "1.0 ** (begins", "all turns weighed alike"),
    ("fade", "begins.cumsum(1) - 1", "begins.sum(1, keepdim=True) - begins.cumsum(1)",
     "the turns were numbered from the other end"),
    ("recent", "begins.sum(1, keepdim=True) - begins.cumsum(1)", "begins.cumsum(1) - 1",
     "the turns were numbered from the other end"),
    ("fade", "begins.cumsum(1) - 1", "begins.flatten().cumsum(0).view(begins.shape) - 1",
     "the turns were numbered through the whole batch; every row begins with 0"),
    ("fade", "each = -(1 - 0.1) * hit - 0.1 * log_p.mean(1)", "each = -hit", "nothing was smoothed"),
    ("recent", "log_p.mean(1)", "(log_p.sum(1) - hit) / (log_p.shape[1] - 1)",
     "the other tokens shared what is smoothed; the target gets its part too"),
    ("recent", "/ w.sum()", "/ there.sum()",
     "the sum was divided by the number of places, not by the sum of the weights"),
    ("fade", "z / 1.6", "z", "the logits were not divided"),
    ("fade", "z / 1.6", "z * 1.6", "the logits were multiplied, not divided"),
    ("recent", "0.15 * z", "0 * z", "the square of log Σ exp(logits) is missing"),
    ("recent", "z.logsumexp(1) ** 2", "z.logsumexp(1)", "log Σ exp(logits) was not squared"),
    ("fade", "-(1 - 0.1) * hit - 0.1 * log_p.mean(1)", "0.1 * (hit - log_p.mean(1)) - hit", ""),
]  # fmt: skip
