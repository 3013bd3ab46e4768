"""The sections of the quickstart's report: what a teacher projects, one idea after another."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from minirlhf.evaluation.metrics_file import Row, series
from minirlhf.reports import plots
from minirlhf.reports.page import answer, folded, panel, panels, table
from minirlhf.reports.road import road
from minirlhf.reports.sections import metric_panels
from minirlhf.reports.story import Summary, amount, interval, stops, three_sentences

MODELS = ("base", "sft", "ppo")
NAMES = {"base": "Base", "sft": "SFT", "ppo": "PPO"}
STAGES = {
    "pretrain": ("Pretraining: learning the language", ("loss_nats_per_token", "val_bits_per_byte", "learning_rate")),
    "sft": (
        "Supervised fine-tuning: learning to answer",
        ("loss_nats_per_token", "val_bits_per_byte", "learning_rate"),
    ),
    "reward": ("Reward model: learning what is preferred", ("accuracy", "loss_nats_per_pair", "margin_mean")),
    "ppo": (
        "PPO: practising against the reward model",
        (
            "score_mean",
            "true_reward_mean",
            "kl_nats_per_response",
            "entropy_nats_per_token",
            "response_tokens_mean",
            "explained_variance",
        ),
    ),
}
READ_THIS = (
    "A bar is a mean over held-out prompts; its whisker is the 95 % interval. Where two whiskers do not overlap, the "
    "difference is no accident of which prompts were asked.",
    "Two rewards appear. The score is what the reward model believes, and what PPO climbs. The true reward is computed "
    "from the facts of the village, and no training step ever sees it. As long as both rise together, the model gets "
    "better; when the score rises and the true reward falls, it has learnt to please the judge instead.",
    "KL says how far the policy has moved from the model it started from, in nats per answer: 0 is no move at all. "
    "Every reward is bought with some KL; the cheaper, the better.",
    "Curves are noisy because every step sees other prompts. Look at the trend, not at single points; the pale band "
    "reaches from the lowest to the highest value.",
)


def opening(summary: Summary) -> list[str]:
    """Title, three sentences, the key numbers, the road."""
    wins, reward = summary["win_rate_ppo_vs_sft"], summary["true_reward"]
    key_numbers = (
        (f"{summary['seconds']['total']:.0f} s", "for the whole road"),
        (f"{summary['peak_rss_mib']:.0f} MiB", "of memory at most"),
        (amount(summary["parameters"]), "weights"),
        (f"{reward['sft']['mean']:.2f} → {reward['ppo']['mean']:.2f}", "true reward, SFT → PPO"),
        (f"{wins['mean']:.0%}", f"of {wins['n']} prompts won against SFT ({interval(wins, True)})"),
    )
    boxes = "".join(f"<div><b>{escape(number)}</b>{escape(what)}</div>" for number, what in key_numbers)
    return [
        "<h1>A language model, from random numbers to human preference</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in three_sentences(summary)),
        f'<div class="key-numbers">{boxes}</div>',
        "<h2>The road</h2>",
        f'<div class="wide-only">{road(stops(summary))}</div>',
        f'<div class="tall-only">{road(stops(summary), standing=True)}</div>',
    ]


def true_reward(summary: Summary) -> list[str]:
    """Bars by named part, before and after, and the other numbers of the three models."""
    reward = summary["true_reward"]
    bars = {
        part: {m: _bar(reward[m]["parts"][part]) for m in MODELS if part in reward[m].get("parts", {})}
        for part in dict.fromkeys(part for m in MODELS for part in reward[m].get("parts", {}))
    }
    total = {m: _bar(reward[m]) for m in MODELS}
    figures = [
        panel("All parts together", plots.grouped_bars("true reward", {"sum": total}, "true reward", max(2, len(bars))))
    ]
    if bars:
        figures.append(panel("By part", plots.grouped_bars("true reward by part", bars, "mean per answer", len(bars))))
    rows = [
        (
            "true reward, mean",
            *(f"{reward[m]['mean']:.2f} <span class='quiet'>({interval(reward[m])})</span>" for m in MODELS),
        ),
        *(
            (label, *(format(summary[key][m], form) for m in MODELS))
            for label, key, form in (
                ("KL from the reference, nats per answer", "kl_nats_per_response", ".2f"),
                ("answers that end by themselves", "eos_rate", ".1%"),
                ("variety (distinct-2)", "distinct_2", ".3f"),
                ("mean length, tokens", "mean_response_tokens", ".1f"),
            )
        ),
    ]
    cells = [(name, *(f'<span class="number">{cell}</span>' for cell in row)) for name, *row in rows]
    return [
        "<h2>What got better, part by part</h2>",
        "<p>The true reward is a sum of named parts. Training never sees it; it is measured on held-out prompts.</p>",
        panels(figures, "pair"),
        table(("", *(NAMES[m] for m in MODELS)), cells, "numbers"),
    ]


def _bar(estimate: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    low, high = estimate["interval_95"]
    return estimate["mean"], (low, high)


def answers_side_by_side(samples: Sequence[Mapping[str, Any]], first: int = 6) -> list[str]:
    """Held-out prompts with three answers each: the greatest gain from SFT to PPO first, the worst at the end."""
    if not samples:
        return []
    ordered = sorted(samples, key=_gain, reverse=True)
    head = ("Prompt", "Base", "SFT", "PPO")
    shown, rest = ordered[:first], ordered[first:]
    parts = [
        "<h2>The same prompts, three models</h2>",
        "<p>Prompts no model was trained on. The number is the true reward; green marks the best of the three, red the "
        "worst. The greatest gain from SFT to PPO comes first.</p>",
        table(head, [_sample_row(sample) for sample in shown], "answers"),
    ]
    if rest:
        more = table(head, [_sample_row(sample) for sample in rest], "answers")
        parts.append(folded(f"{len(rest)} more, down to where PPO did worst", more))
    return parts


def _gain(sample: Mapping[str, Any]) -> tuple[float, float]:
    """From SFT to PPO; among equal gains the better answer comes first."""
    after = sample["ppo"]["true_reward"]
    return after - sample["sft"]["true_reward"], after


def _sample_row(sample: Mapping[str, Any]) -> list[str]:
    worths = [sample[m]["true_reward"] for m in MODELS]
    cells = [f'<div class="answer"><b>{escape(sample["prompt"])}</b></div>']
    for model, worth in zip(MODELS, worths, strict=True):
        kind = (
            ""
            if max(worths) == min(worths)
            else " good"
            if worth == max(worths)
            else " bad"
            if worth == min(worths)
            else ""
        )
        cells.append(f'<span class="worth{kind}">{worth:+.2f}</span>{answer(sample[model]["text"])}')
    return cells


def kl_against_reward(rows: list[Row]) -> list[str]:
    """Twin panels: what the judge believes and what is true, as the policy moves away from its start."""
    kl, figures = series(rows, "kl_nats_per_response"), []
    for key, label, colour, note in (
        ("score_mean", "score", plots.LINES[0], "What the reward model believes, which PPO climbs"),
        ("true_reward_mean", "true reward", plots.LINES[1], "What is true, which PPO never sees"),
    ):
        y = series(rows, key)
        if len(y) and len(kl):
            svg = plots.against(f"kl against {key}", kl, y, "KL, nats per response", label, colour)
            figures.append(panel(note, svg))
    if not figures:
        return []
    text = (
        "Each dot is a step of PPO, pale at the beginning. If the right panel turns down while the left still rises, "
    )
    text += "the policy is fooling its judge."
    return ["<h2>What a nat of KL buys</h2>", f"<p>{escape(text)}</p>", panels(figures, "pair")]


def stage_curves(name: str, rows: list[Row]) -> list[str]:
    """The curves that matter for one stage, the others folded away."""
    title, keys = STAGES[name]
    main = metric_panels(name, rows, keys)
    shown = {*keys, *(key for key in rows[-1] if key.startswith("val_"))}
    others = metric_panels(
        name, rows, [key for key in dict.fromkeys(k for r in rows for k in r) if key not in shown | {"step", "seconds"}]
    )
    parts = [f"<h3>{escape(title)}</h3>", panels(main)]
    return [*parts, folded(f"{len(others)} more curves of this stage", panels(others))] if others else parts


def how_to_read() -> list[str]:
    """Four paragraphs for whoever has never seen such a page."""
    return ["<h2>How to read this</h2>", *(f"<p>{escape(paragraph)}</p>" for paragraph in READ_THIS)]
