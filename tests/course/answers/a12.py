"""Answers to the twist of a12, written from its text and in torch: they share nothing with the NumPy formula."""

VARIANTS = {
    "anchor": {"power": 0.6, "margin": 0.5, "floor": 0.3, "edge": 0.2, "anchor": 0.15},
    "down": {"power": 0.35, "margin": 1.2, "floor": 0.8, "edge": 0.12, "down": 0.4},
}


def solve(twist):
    dpo = [
        "h_chosen = chosen_log_probs - ref_chosen_log_probs",
        "h_rejected = rejected_log_probs - ref_rejected_log_probs",
        f"chosen = beta * h_chosen / chosen_tokens ** {twist['power']!r}",
        f"rejected = beta * h_rejected / rejected_tokens ** {twist['power']!r}",
        f"cost = -logsigmoid(chosen - rejected - {twist['margin']!r})",
    ]
    if "anchor" in twist:
        dpo.append(f"cost = cost + {twist['anchor']!r} * (-h_chosen).relu()")
    down = [f"advantages = torch.where(advantages < 0, advantages * {twist.get('down')!r}, advantages)"]
    return {
        "twisted_dpo": [*dpo, "return cost.mean()"],
        "twisted_grpo_loss": [
            "groups = scores.reshape(-1, group_size)",
            "spread = groups.std(dim=1, keepdim=True)",
            f"advantages = ((groups - groups.mean(dim=1, keepdim=True)) / (spread + {twist['floor']!r})).flatten()",
            *(down if "down" in twist else []),
            "moved = (log_probs - old_log_probs).masked_fill(~response_mask, 0.0)",
            "ratio = (moved.sum(dim=1) / response_mask.sum(dim=1)).exp()",
            f"clipped = ratio.clamp(1 - {twist['edge']!r}, 1 + {twist['edge']!r})",
            "return -torch.minimum(ratio * advantages, clipped * advantages).mean()",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("anchor", "** 0.6", "** 0", "the answers' lengths did not matter"),
    ("down", "** 0.35", "** 1", "the log-ratios were divided by n itself, not by its power"),
    ("down", "** 0.35", "** -0.35", "the log-ratios were multiplied by the power of n, not divided"),
    ("anchor", "rejected - 0.5", "rejected", "there were no margin"),
    ("down", "rejected - 1.2", "rejected + 1.2", "the margin were given to the chosen answer, not asked of it"),
    ("down", "rejected - 1.2", "rejected - 1.2 * beta", "the margin were multiplied by beta"),
    ("anchor", "cost.mean()", "cost.sum()", "the pairs were summed, not averaged"),
    ("anchor", "+ 0.15 *", "+ 0 *", "nothing kept the chosen answer from becoming rarer"),
    ("anchor", "(-h_chosen).relu()", "h_chosen.relu()", "the chosen answer paid for becoming more likely"),
    ("anchor", "(-h_chosen)", "(-h_rejected)", "the rejected answer paid for becoming rarer"),
    ("anchor", "(-h_chosen)", "(-h_chosen / chosen_tokens ** 0.6)",
     "the nats that the chosen answer lost were divided by its length"),
    ("anchor", "spread + 0.3", "spread + 1e-6", "1e-6 still stood beside the standard deviation"),
    ("down", "std(dim=1,", "std(dim=1, correction=0,", "the variance were divided by n; n - 1 is right, as before"),
    ("anchor", "ratio = (moved.sum(dim=1) / response_mask.sum(dim=1)).exp()",
     "ratio, advantages = moved.exp(), advantages[:, None] * response_mask * response_mask.shape[1] "
     "/ response_mask.sum(dim=1, keepdim=True)",
     "every token had a ratio of its own"),
    ("down", "(moved.sum(dim=1) / response_mask.sum(dim=1))", "moved.sum(dim=1)",
     "the log-ratios were summed, not averaged"),
    ("down", "(moved.sum(dim=1) / response_mask.sum(dim=1))", "moved.mean(dim=1)",
     "the log-ratios were averaged over the padding too"),
    ("anchor", "ratio.clamp(1 - 0.2, 1 + 0.2)", "ratio", "nothing were clipped"),
    ("down", "advantages * 0.4, advantages", "advantages, advantages", "negative advantages counted in full"),
    ("down", "advantages < 0", "advantages > 0", "the factor met the positive advantages"),
    ("anchor", "cost = -logsigmoid(chosen - rejected - 0.5)",
     "cost = torch.nn.functional.softplus(rejected + 0.5 - chosen)", ""),  # the same, and as safe
]  # fmt: skip
