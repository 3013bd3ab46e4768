"""Answers to the twist of a08, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "spread": {"home": 0.6, "tie": 0.4, "spread": 1.8},
    "lapse": {"home": 0.35, "tie": 0.75, "lapse": 0.2},
}


def solve(twist):
    home, tie, lapse = twist["home"], twist["tie"], twist.get("lapse")
    divided = f"(first - second) / {twist['spread']!r}" if "spread" in twist else "first - second"
    probabilities = [
        f"d = {divided} + {home!r}",
        f"ahead, behind = torch.sigmoid(d - {tie!r}), torch.sigmoid(-d - {tie!r})",
        "three = torch.stack((ahead, behind, 1 - ahead - behind), dim=1)",
    ]
    loss = [
        f"d = {divided} + {home!r}",
        f"ahead, behind = logsigmoid(d - {tie!r}), logsigmoid(-d - {tie!r})",
        f"three = torch.stack((ahead, behind, ahead + behind + math.log(math.exp(2 * {tie!r}) - 1)), dim=1)",
    ]
    if lapse is not None:
        probabilities += [
            f"blind = torch.tensor([{lapse!r} / 2, {lapse!r} / 2, 0.0], dtype=d.dtype)",
            f"three = (1 - {lapse!r}) * three + blind",
        ]
        loss += [
            f"win = ((1 - {lapse!r}) * three[:, :2].exp() + {lapse!r} / 2).log()",
            f"three = torch.cat((win, three[:, 2:] + math.log(1 - {lapse!r})), dim=1)",
        ]
    return {
        "twisted_probabilities": [*probabilities, "return three"],
        "twisted_loss": [*loss, "return -three.gather(1, outcomes[:, None]).mean()"],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("spread", "/ 1.8 + 0.6", "/ 1.8", "there were no home advantage"),
    ("lapse", "second + 0.35", "second - 0.35", "the home advantage went to the answer shown second"),
    ("spread", "(first - second) / 1.8", "first - second", "the scores were not divided"),
    ("spread", "/ 1.8", "* 1.8", "the scores were multiplied, not divided"),
    ("spread", "/ 1.8 + 0.6", "/ 1.8 + 0.6 / 1.8", "the home advantage were divided too"),
    ("spread", "(ahead, behind, 1 - ahead - behind)", "(ahead, 1 - ahead - behind, behind)",
     "the second outcome were a tie; that is outcome 2"),
    ("spread", "(ahead, behind, ahead", "(behind, ahead, ahead", "first and second changed places in the outcomes"),
    ("lapse", "three = (1 - 0.2) * three + blind", "pass", "nobody chose blindly"),
    ("lapse", "[0.2 / 2, 0.2 / 2, 0.0]", "[0.2 / 3] * 3",
     "blind choices fell on all three outcomes; they never say tie"),
    ("lapse", "(1 - 0.2) * three", "three", "blind choices came on top: the others lose their share"),
    ("spread", "[:, None]).mean()", "[:, None]).sum()", "the comparisons were summed, not averaged"),
    ("lapse", "math.exp(2 * 0.75) - 1", "math.expm1(1.5)", ""),  # the same number
]  # fmt: skip
