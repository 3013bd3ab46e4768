"""Answers to the twist of a11, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "skew": {"order": 0.6, "heat": 1.5, "control": 0.4, "skew": 0.2},
    "cap": {"order": 1.8, "heat": 1.9, "control": 1.3, "cap": 2.2},
}


def solve(twist):
    order, control = twist["order"], twist["control"]
    mix = []
    if "skew" in twist:
        mix = [
            f"shares = torch.tensor([1 - {twist['skew']!r}, {twist['skew']!r}], dtype=p.dtype).log()",
            "q = torch.logaddexp(q + shares[0], p + shares[1])",
        ]
    cap = [f"r = r.clamp_max({twist['cap']!r})"] if "cap" in twist else []
    return {
        "twisted_divergence": [
            "forbidden = logits.isinf()",
            f"p, q = log_probs_of(logits), log_probs_of(ref_logits, {twist['heat']!r})",
            "p, q = p.masked_fill(forbidden, 0.0), q.masked_fill(forbidden, 0.0)",
            *mix,
            f"powers = {order!r} * q + (1 - {order!r}) * p",
            f"return powers.masked_fill(forbidden, -torch.inf).logsumexp(-1) / ({order!r} - 1)",
        ],
        "twisted_estimate": [
            "r = (ref_log_probs - log_probs).masked_fill(~response_mask, 0.0).exp()",
            *cap,
            f"each = r * r.log() - {control!r} * (r - 1)",
            "return masked_sum(each, response_mask) / len(each)",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("cap", "1.8 * q + (1 - 1.8) * p", "1.8 * p + (1 - 1.8) * q",
     "p and q changed places: the order is the exponent of the reference"),
    ("skew", "log_probs_of(ref_logits, 1.5)", "log_probs_of(ref_logits)", "the reference were read at temperature 1"),
    ("cap", "log_probs_of(ref_logits, 1.9)", "log_probs_of(ref_logits, 1 / 1.9)",
     "the reference's logits were multiplied by the temperature"),
    ("skew", "log_probs_of(logits)", "log_probs_of(logits, 1.5)",
     "the policy were read at the reference's temperature too"),
    ("cap", "/ (1.8 - 1)", "", "the logarithm were not divided by the order less 1"),
    ("skew", "/ (0.6 - 1)", "/ (1 - 0.6)", "the sign were turned round: it is order - 1 below the line"),
    ("skew", "q = torch.logaddexp(q + shares[0], p + shares[1])", "pass",
     "nothing of the policy were mixed into the reference"),
    ("skew", "(q + shares[0], p + shares[1])", "(q + shares[1], p + shares[0])",
     "the two shares of the mixture changed places"),
    ("skew", "p + shares[1])", "p.detach() + shares[1])", "the policy's part of the mixture did not learn"),
    ("cap", "(ref_log_probs - log_probs)", "(log_probs - ref_log_probs)",
     "the ratio were upside down: it is reference over policy"),
    ("skew", "- 0.4 * (r - 1)", "", "r - 1 were missing"),
    ("cap", "- 1.3 * (r - 1)", "+ 1.3 * (r - 1)", "r - 1 were added, not taken off"),
    ("skew", "- 0.4 * (r - 1)", "- (r - 1)", "r - 1 counted in full"),
    ("cap", "masked_sum(each, response_mask) / len(each)",
     "(each.masked_fill(~response_mask, 0.0).sum(1) / response_mask.sum(1)).mean()",
     "an answer's tokens were averaged, not summed"),
    ("skew", "masked_sum(each, response_mask) / len(each)", "masked_sum(each, response_mask) / response_mask.sum()",
     "one mean were taken over all tokens"),
    ("cap", "r = r.clamp_max(2.2)", "pass", "nothing held the ratio"),
    ("cap", "r * r.log()", "torch.xlogy(r, r)", ""),  # the same number
]  # fmt: skip
