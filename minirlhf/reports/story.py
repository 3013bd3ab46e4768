"""The quickstart's story in words, from the numbers of its summary: three sentences, six stops, twelve lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minirlhf.reports.road import Stop

Summary = Mapping[str, Any]


def amount(value: float) -> str:
    """A count a person can say: 1.2 million, 35 thousand, 412."""
    if value >= 999_500:
        return f"{value / 1e6:.1f} million"
    return f"{value / 1e3:.0f} thousand" if value >= 10_000 else f"{value:.0f}"


def seconds(value: float) -> str:
    """0.8 s, 42 s."""
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def interval(estimate: Mapping[str, Any], as_percent: bool = False) -> str:
    """`low to high` of an estimate's 95 % interval."""
    low, high = estimate["interval_95"]
    return f"{low:.1%} to {high:.1%}" if as_percent else f"{low:.2f} to {high:.2f}"


def improved(summary: Summary) -> bool:
    """Did PPO surely raise the true reward? The two 95 % intervals must not touch."""
    reward = summary["true_reward"]
    return bool(reward["ppo"]["interval_95"][0] > reward["sft"]["interval_95"][1])


def three_sentences(summary: Summary) -> list[str]:
    """Born, taught, improved: what happened, with this run's numbers, whether or not it went well."""
    reward, judge, wins = summary["true_reward"], summary["reward_model"], summary["win_rate_ppo_vs_sft"]
    total, bits, ends = (
        summary["seconds"]["total"],
        summary["pretrain"]["val_bits_per_byte"],
        summary["eos_rate"]["sft"],
    )
    born = (
        f"In {total:.0f} seconds, {amount(summary['parameters'])} random numbers became a language model: having read "
        f"the village's stories, it needs {bits:.2f} bits for each byte of a new story (a blind guess needs 8)."
    )
    taught = (
        f"Demonstrations then taught it to answer ({ends:.0%} of its answers end by themselves), and pairs of answers "
        f"taught a reward model to judge: it agrees with {judge['accuracy']:.0%} of held-out choices, and the noise in "
        f"those choices allows {judge['best_possible_accuracy']:.0%} at best."
    )
    verdict = "raised" if improved(summary) else "did not surely raise"
    better = (
        f"Practice against that judge, with PPO, {verdict} the true reward, which training never sees: from "
        f"{reward['sft']['mean']:.2f} to {reward['ppo']['mean']:.2f}, winning {wins['mean']:.0%} of {wins['n']} "
        "held-out prompts against the model it started from."
    )
    return [born, taught, better]


def stops(summary: Summary) -> list[Stop]:
    """The six stops of the road with this run's seconds and figures."""
    took, reward, judge = summary["seconds"], summary["true_reward"], summary["reward_model"]
    return [
        Stop("text", "Text", "stories of a village", ["made by us,", "so truth is known"]),
        Stop("tokens", "Tokenizer", "words become numbers", [seconds(took["tokenizer"])]),
        Stop(
            "layers",
            "GPT",
            "guesses what is next",
            [seconds(took["pretrain"]), f"{amount(summary['parameters'])} weights", _bits(summary)],
        ),
        Stop(
            "answer",
            "SFT",
            "imitates answers",
            [
                seconds(took["sft"]),
                f"{summary['eos_rate']['sft']:.0%} end properly",
                f"true reward {reward['sft']['mean']:.2f}",
            ],
        ),
        Stop(
            "scales",
            "Reward model",
            "learns what is liked",
            [
                seconds(took["reward"]),
                f"right on {judge['accuracy']:.0%}",
                f"(best possible {judge['best_possible_accuracy']:.0%})",
            ],
        ),
        Stop(
            "loop",
            "PPO",
            "seeks a higher score",
            [
                seconds(took["ppo"]),
                f"beats SFT in {summary['win_rate_ppo_vs_sft']['mean']:.0%}",
                f"true reward {reward['ppo']['mean']:.2f}",
            ],
        ),
    ]


def _bits(summary: Summary) -> str:
    return f"{summary['pretrain']['val_bits_per_byte']:.2f} bits per byte"


def console_story(summary: Summary, folder: Path | str = "DIR") -> str:
    """The whole road in twelve lines for the terminal; folder is where the quickstart wrote."""
    took, reward, judge = summary["seconds"], summary["true_reward"], summary["reward_model"]
    wins, kl, eos, variety = (
        summary[key] for key in ("win_rate_ppo_vs_sft", "kl_nats_per_response", "eos_rate", "distinct_2")
    )
    length = summary["mean_response_tokens"]

    def three(values: Mapping[str, float], form: str) -> str:
        return f"base {values['base']:{form}}, SFT {values['sft']:{form}}, PPO {values['ppo']:{form}}"

    means = {name: reward[name]["mean"] for name in ("base", "sft", "ppo")}
    verdict = "surely better than SFT" if improved(summary) else "not surely better than SFT: the intervals touch"
    stages = {
        "tokenizer": "text became numbers",
        "pretrain": f"{amount(summary['parameters'])} weights, {_bits(summary)} on unseen text",
        "sft": f"imitated demonstrations; {eos['sft']:.0%} of its answers end by themselves",
        "reward": f"agrees with {judge['accuracy']:.1%} of held-out choices ({interval(judge, True)}; "
        f"best possible {judge['best_possible_accuracy']:.1%})",
        "ppo": f"practised against the reward model; moved {kl['ppo']:.1f} nats per answer",
    }
    lines = [
        f"The whole road took {took['total']:.0f} s and at most {summary['peak_rss_mib']:.0f} MiB of memory.",
        *(f"  {name:<10}{seconds(took[name]):>7}   {text}" for name, text in stages.items()),
        f"True reward:  {three(means, '.2f')}  (PPO {interval(reward['ppo'])}: {verdict})",
        f"PPO wins {wins['mean']:.1%} of {wins['n']} held-out prompts against SFT ({interval(wins, True)}; ties half).",
        f"Ended alone:  {three(eos, '.0%')}   Variety (distinct-2): {three(variety, '.2f')}",
        f"Mean length:  {three(length, '.0f')} tokens",
        f"Look at it:   {Path(folder) / 'report.html'}",
        f"Talk to it:   minirlhf chat {Path(folder) / 'ppo'}",
    ]
    return "\n".join(lines)
