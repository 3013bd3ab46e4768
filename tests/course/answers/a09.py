"""Answers to the twist of a09, written from its text with the library's policies: the formula uses none of them."""

VARIANTS = {
    "greedy": {"first": 0.7, "power": 0.5, "down": 0.3, "bonus": 0.6, "epsilon": 0.25, "warm": 1.8},
    "soft": {"first": 0.5, "power": 0.66, "down": 0.45, "bonus": 0.9, "calm": 0.4, "reach": 3},
}


def solve(twist):
    if "epsilon" in twist:
        policy = f"epsilon_greedy_policy(q, {twist['epsilon']!r})"
        returns = ["g = np.array([sum(gamma**i * r for i, r in enumerate(rewards[t:])) for t in range(len(rewards))])"]
        warm = twist["warm"]
    else:
        policy = f"softmax_policy(q / {twist['calm']!r})"
        padded = f"np.append(rewards, np.zeros({twist['reach'] - 1}))"
        returns = [f"g = np.convolve({padded}, gamma ** np.arange({twist['reach']})[::-1], 'valid')"]
        warm = 1
    return {
        "twisted_sarsa": [
            "q, seen = q.copy(), []",
            "for place, reward, following in zip(zip(states, actions), rewards, next_states):",
            "    seen.append(place)",
            f"    policy = {policy}[following]",
            "    target = reward + gamma * (policy * q[following]).sum()",
            f"    step = {twist['first']!r} / seen.count(place) ** {twist['power']!r}",
            "    if target < q[place]:",
            f"        step *= {twist['down']!r}",
            "    q[place] = (1 - step) * q[place] + step * target",
            "return q",
        ],
        "twisted_gradient": [
            *returns,
            f"policy = softmax_policy(logits / {warm!r})[states]",
            "taken = np.eye(logits.shape[1])[actions] - policy",
            "entropy = -(policy * np.log(policy)).sum(1, keepdims=True)",
            "opening = -policy * (np.log(policy) + entropy)",
            "fade = gamma ** np.arange(len(rewards))",
            f"steps = (g - baseline[states])[:, None] * taken + {twist['bonus']!r} * opening",
            "found = np.zeros_like(logits)",
            f"np.add.at(found, states, fade[:, None] * steps / {warm!r})",
            "return found",
        ],
    }


# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("greedy", "(policy * q[following]).sum()", "q[following].max()",
     "the best next action counted, as in Q-learning; it is the mean under π"),
    ("soft", "seen.count(place) ** 0.66", "1", "all steps had the first size: n^power is missing"),
    ("greedy", "seen.count(place)", "sum(each[0] == place[0] for each in seen)",
     "n counted the updates of a state; it is state and action"),
    ("soft", "seen.count(place)", "(1 + seen.count(place))", "n began with 2; the first update has n = 1"),
    ("greedy", "step *= 0.3", "step *= 1", "targets below Q(s, a) were not slowed"),
    ("soft", "target < q[place]", "target > q[place]", "targets above Q(s, a) were slowed, not those below"),
    ("soft", "q / 0.4", "q", "Q was not divided in the softmax"),
    ("soft", "q / 0.4", "q * 0.4", "Q was multiplied in the softmax, not divided"),
    ("greedy", "epsilon_greedy_policy(q, 0.25)", "epsilon_greedy_policy(q, 0.25 * 1.5)",
     "the exploring share went to the other actions only; any action means the greedy one too"),
    ("greedy", "0.6 * opening", "0 * opening", "there were no bonus for entropy"),
    ("soft", "+ 0.9 * opening", "- 0.9 * opening", "entropy were charged, not paid"),
    ("soft", "0.9 * opening", "0.9 * opening / fade[:, None]", "γ^t is missing before the entropy's slope"),
    ("greedy", "fade = gamma **", "fade = 1.0 **", "γ^t is missing"),
    ("greedy", "steps / 1.8", "steps", "the slopes are those in logits / w; in the logits they are w times smaller"),
    ("soft", "np.zeros(2)), gamma ** np.arange(3)", "np.zeros(8)), gamma ** np.arange(9)",
     "all rewards to the end counted"),
    ("soft", "np.zeros(2)), gamma ** np.arange(3)", "np.zeros(3)), gamma ** np.arange(4)",
     "one reward too many counted"),
    ("soft", "np.zeros(2)), gamma ** np.arange(3)", "np.zeros(1)), gamma ** np.arange(2)",
     "one reward too few counted"),
    ("soft", "+ step * target", "+ target * step", ""),
]  # fmt: skip
