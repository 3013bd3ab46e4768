"""Answers to the twist of a05, written from its text and in torch: they share nothing with the NumPy formula."""

COMMON = {"warmup": 5.0, "rise": 1.7, "hold": 0.3, "fall": 2.2, "end": 0.12, "beta1": 0.8, "beta2": 0.95, "pull": 0.25}
VARIANTS = {"ahead": COMMON | {"ahead": 0.3}, "limit": COMMON | {"limit": 0.5}}


def solve(twist):
    t = {name: repr(value) for name, value in twist.items()}
    warmup = repr(int(twist["warmup"]))
    if "ahead" in twist:
        move = [
            f"top = torch.lerp(first / (1 - {t['beta1']} ** step), gradient, {t['ahead']})",
            "u = top / (size + 1e-6)",
        ]
    else:
        move = [
            f"top = first / (1 - {t['beta1']} ** step)",
            f"u = (top / (size + 1e-6)).clamp(-{t['limit']}, {t['limit']})",
        ]
    return {
        "own_rate": [
            f"if step < {warmup}:",
            f"    return peak * math.pow((step + 1) / {warmup}, {t['rise']})",
            f"p = (step - {warmup}) / (total_steps - 1 - {warmup})",
            f"if p <= {t['hold']}:",
            "    return peak",
            f"q = (p - {t['hold']}) / (1 - {t['hold']})",
            f"return peak * ({t['end']} + (1 - {t['end']}) * math.pow(max(0.0, 1 - q), {t['fall']}))",
        ],
        "own_step": [
            f"first = torch.lerp(gradient, first, {t['beta1']})",
            f"second = torch.lerp(gradient.square(), second, {t['beta2']})",
            f"size = (second / (1 - {t['beta2']} ** step)).sqrt()",
            *move,
            f"away = {t['pull']} * (weight - start)",
            "return weight - learning_rate * (u + away), first, second",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("ahead", "math.pow((step + 1) / 5, 1.7)", "(step + 1) / 5", "the warm-up rose in a straight line"),
    ("limit", "(step + 1) / 5", "step / 5", "the first step did not move: k + 1 counts, not k"),
    ("limit", "p <= 0.3:\n        return peak\n    q = (p - 0.3) / (1 - 0.3)", "p < 0:\n        return peak\n    q = p",
     "the rate never held its peak: it fell from the end of the warm-up"),
    ("ahead", "q = (p - 0.3) / (1 - 0.3)", "q = p", "the fall went by p, not by q"),
    ("ahead", "math.pow(max(0.0, 1 - q), 2.2)", "(1 - q)", "the fall were a straight line"),
    ("limit", "(0.12 + (1 - 0.12) * ", "(", "the rate fell to 0"),
    ("ahead", "(total_steps - 1 - 5)", "(total_steps - 5)", "the last step were step n, not n - 1"),
    ("ahead", "(weight - start)", "weight", "the weights were pulled to 0, not to where they started"),
    ("ahead", "(weight - start)", "(weight + start)",
     "the weights were pushed away from the start's mirror image: it is w - start"),
    ("limit", "(u + away)", "u", "nothing pulled the weights"),
    ("limit", "first = torch.lerp(gradient, first", "gradient = gradient + 0.25 * (weight - start)\n"
     "    start = weight\n    first = torch.lerp(gradient, first",
     "the pull went through the moments; it stands apart"),
    ("ahead", "(1 - 0.8 ** step)", "1", "m were not corrected for its start"),
    ("limit", "(1 - 0.95 ** step)", "1", "v were not corrected for its start"),
    ("ahead", ", 0.3)\n    u", ", 0.0)\n    u", "the numerator were m̂ alone"),
    ("ahead", ", 0.3)\n    u", ", 0.7)\n    u", "m̂ and the gradient had changed weights"),
    ("limit", ".clamp(-0.5, 0.5)", "", "the move were not clipped"),
    ("limit", "(u + away), first", "(top / (size + 1e-6) + away).clamp(-0.5, 0.5), first",
     "the pull were clipped together with the move"),
    ("limit", "torch.lerp(gradient.square(), second, 0.95)", "0.95 * second + 0.05 * gradient**2", ""),
]  # fmt: skip
