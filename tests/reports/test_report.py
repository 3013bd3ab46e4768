"""The reports: whole, self-contained, harmless whatever a model wrote, and the same every time."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.reports import page, plots
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.reports.report import write_quickstart_report, write_run_report
from minirlhf.reports.sections import samples_over_time
from minirlhf.reports.story import amount, console_story, three_sentences
from minirlhf.reports.time_spent import seconds_within, where_time_went
from tests.helpers.curves import likelihood_rows, policy_rows, reward_rows

NASTY = (
    '</td></table><script>alert(1)</script><img src="http://evil.example/x.png" onerror=alert(1)> & \x00 ]]> {{7*7}}'
)


def write_run(folder, rows, samples=(), config=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if samples:
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples), encoding="utf-8")
    if config:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def estimate(mean, half=0.1):
    return {"mean": mean, "interval_95": [mean - half, mean + half]}


def reward(mean):
    return estimate(mean) | {"parts": {"helpful": estimate(mean / 2), "kind": estimate(mean / 2)}}


def answers(*worths, text="A story."):
    return {m: {"text": f"{text} {m}", "true_reward": w} for m, w in zip(("base", "sft", "ppo"), worths, strict=True)}


SUMMARY = {
    "seconds": {
        "tokenizer": 1.5, "pretrain": 80.2, "sft": 30.0, "reward": 20.0, "ppo": 70.0, "evaluation": 10.0,
        "total": 211.7,
    },
    "ppo_seconds": {"generation": 30.0, "scoring": 5.0, "update": 28.0, "rest": 7.0},
    "peak_rss_mib": 900.4,
    "parameters": 1_213_440,
    "pretrain": {"val_bits_per_byte": 0.91},
    "reward_model": {
        "accuracy": 0.79, "interval_95": [0.76, 0.82], "best_possible_accuracy": 0.83,
        "calibration": [{"low": 0.5, "high": 0.75, "predicted": 0.6, "observed": 0.62, "count": 40}],
        "margin_edges": [-1.0, 0.0, 1.0], "margin_counts": [3, 9],
    },
    "true_reward": {"base": reward(-1.0), "sft": reward(1.25), "ppo": reward(2.5)},
    "win_rate_ppo_vs_sft": estimate(0.8, 0.05) | {"n": 256},
    "kl_nats_per_response": {"base": 0.0, "sft": 0.0, "ppo": 9.0},
    "eos_rate": {"base": 0.1, "sft": 0.96, "ppo": 0.99},
    "distinct_2": {"base": 0.3, "sft": 0.5, "ppo": 0.47},
    "mean_response_tokens": {"base": 60.0, "sft": 34.0, "ppo": 38.0},
    "samples": [
        {"prompt": "little gain"} | answers(-1.0, 1.0, 1.5),
        {"prompt": "great gain"} | answers(-1.0, 0.0, 3.0),
        {"prompt": "a loss"} | answers(-1.0, 2.0, 0.5),
        {"prompt": NASTY} | answers(0.0, 0.0, 0.0, text=NASTY),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    write_run(folder / "pretrain", likelihood_rows(n=120))
    write_run(folder / "sft", likelihood_rows(1, n=60))
    write_run(folder / "reward", reward_rows(n=60))
    write_run(folder / "ppo", policy_rows(n=60))
    return folder, write_quickstart_report(folder, SUMMARY).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run_report(tmp_path_factory):
    samples = [
        {"step": s, "prompt": p, "response": f"{NASTY} {s}"} for s in range(0, 60, 2) for p in ("one", NASTY, "three")
    ]
    config = {"command": "ppo", "settings": {"optim": {"learning_rate": 3e-4}, "note": NASTY}}
    folder = write_run(tmp_path_factory.mktemp("runs") / "my <run>", policy_rows(n=60), samples, config)
    return folder, write_run_report(folder).read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags, attributes and text; complains about a tag that closes what is not open."""

    VOID = frozenset(("meta", "br", "img", "link", "input", "hr"))

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.mark.parametrize("which", ["quickstart", "run_report"])
def test_a_report_loads_nothing_runs_nothing_and_is_well_formed(which, request):
    html = request.getfixturevalue(which)[1]
    parsed = Page(html)
    assert not {"script", "img", "iframe", "link", "object", "embed", "base", "form", "image", "foreignobject"} & set(
        parsed.tags
    )
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("href", "xlink:href", "src", "srcset", "action", "data"):
            assert value.startswith("#"), (tag, name, value)
        if not name.startswith("xmlns"):
            assert "http:" not in value and "https:" not in value and "//" not in value
    styles = "".join(re.findall(r"<style.*?</style>", html, flags=re.DOTALL))
    assert "@import" not in styles and "url(" not in styles
    policies = [value for tag, name, value in parsed.attributes if tag == "meta" and "default-src" in str(value)]
    assert policies == [page.POLICY] and policies[0].startswith("default-src 'none'")
    # what a figure refers to exists once on the page
    wanted = set(re.findall(r"url\(#([^)]+)\)", html)) | {v[1:] for _, n, v in parsed.attributes if n == "xlink:href"}
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert wanted and all(ids.count(name) == 1 for name in wanted)
    assert not re.search(r"/(?:tmp|home|work)/", html)


def test_what_a_model_wrote_is_shown_as_text(quickstart, run_report):
    for _, html in (quickstart, run_report):
        assert "<script" not in html and "<img" not in html
        assert "</td></table><script>alert(1)</script>" in "".join(Page(html).text)


@given(text=st.text(max_size=60))
def test_any_text_comes_back_from_the_page_unchanged(text):
    shown = Page(page.answer(text)).text
    assert "".join(shown) == (text if text.strip() else "(nothing)")
    Page(samples_over_time([{"step": 1, "prompt": text, "response": text}]))


def test_the_quickstarts_report_has_every_section_and_the_runs_numbers(quickstart):
    text = "".join(Page(quickstart[1]).text)
    for heading in (
        "The road", "The same prompts, three models", "What got better, part by part", "Can the judge be trusted?",
        "What a nat of KL buys", "The curves of every stage", "Where the time went", "How to read this", "Glossary",
    ):  # fmt: skip
        assert heading in text
    for number in (
        "212 s",
        "900 MiB",
        "1.2 million",
        "0.91 bits",
        "79%",
        "83%",
        "1.25 → 2.50",
        "80%",
        "256",
        "helpful",
        "96%",
        "80 s, 38%",  # pretrain's bar
        "30 s, 43%",  # and that of writing answers
    ):
        assert number in text
    of_other_trainers = {
        "chosen_reward_mean",
        "rejected_reward_mean",
        "log_ratio_nats_per_response",
        "score_std_in_group",
    }
    of_other_machines = {
        "compile_seconds",
        "model_flops_per_second",
        "model_flop_utilisation",
    }  # not in these runs' rows
    # dpo and grpo are no part of this road
    assert {key for key in GLOSSARY if key not in text} == of_other_trainers | of_other_machines
    assert quickstart[1].count('aria-label="The road') == 2  # lying and standing


def test_the_best_moment_comes_first_and_the_worst_last(quickstart):
    html = quickstart[1]
    places = [html.index(f"<b>{prompt}</b>") for prompt in ("great gain", "little gain", "a loss")]
    assert places == sorted(places)


def test_the_same_run_gives_the_same_bytes(quickstart, run_report):
    folder, html = quickstart
    assert write_quickstart_report(folder, SUMMARY).read_text(encoding="utf-8") == html
    folder, html = run_report
    assert write_run_report(folder).read_text(encoding="utf-8") == html


def test_a_run_report_shows_curves_findings_first_and_last_samples_and_settings(run_report, tmp_path):
    text = "".join(Page(run_report[1]).text)
    assert all(key in text for key in policy_rows(n=2)[0])
    assert "found nothing wrong" in text and "my <run>" in text and "optim.learning_rate" in text
    steps = [int(number) for number in re.findall(r'<span class="number">(\d+)</span>', run_report[1])]
    assert steps[0] == 0 and 58 in steps and len(steps) <= 3 * 13
    bad = write_run(tmp_path / "bad", policy_rows(n=60, kl_nats_per_response=lambda t, x, g: 12 * x))
    assert "KL explosion" in "".join(Page(write_run_report(bad).read_text(encoding="utf-8")).text)


def test_a_reward_models_report_is_honest_about_what_it_does_not_know(tmp_path):
    folder = write_run(tmp_path / "reward", reward_rows(n=40))
    evaluation = {"accuracy": 0.53, "interval_95": [0.45, 0.6], "calibration": [], "length": None}
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    assert "a coin toss" in write_run_report(folder).read_text(encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(evaluation | {"interval_95": [0.51, 0.6]}), encoding="utf-8")
    assert "a coin toss" not in write_run_report(folder).read_text(encoding="utf-8")


def test_a_run_of_one_step_is_reported_and_an_empty_one_refused(tmp_path):
    Page(write_run_report(write_run(tmp_path / "one", likelihood_rows(n=1))).read_text(encoding="utf-8"))
    folder = write_run(tmp_path / "none", [])
    with pytest.raises(UserError):
        write_run_report(folder)
    assert not (folder / "report.html").exists()


def test_the_seconds_of_a_stage_add_up_and_are_not_made_up():
    rows = [{"generation_seconds": 1.0, "scoring_seconds": 0.25, "update_seconds": 0.5}] * 4
    assert seconds_within(rows, 10.0) == {"generation": 4.0, "scoring": 1.0, "update": 2.0, "rest": 3.0}
    assert seconds_within(rows, 6.9)["rest"] == 0.0  # clocks that disagree
    assert seconds_within([*rows, {"generation_seconds": 1.0}], 10.0) == seconds_within([], 10.0) == {}
    known = where_time_went(SUMMARY)
    assert "writing answers took longest, 43% of its time" in known[1] and known[2].count("<figure>") == 2
    older = where_time_went({key: value for key, value in SUMMARY.items() if key != "ppo_seconds"})
    assert "Inside PPO" not in "".join(older) and older[2].count("<figure>") == 1


def test_a_stage_that_was_not_run_is_left_out(tmp_path):
    html = write_quickstart_report(tmp_path, SUMMARY).read_text(encoding="utf-8")
    assert "Pretraining: learning" not in html and "The road" in html
    Page(html)


def test_the_console_tells_it_in_twelve_lines_and_says_what_to_try():
    lines = console_story(SUMMARY, "runs/quickstart").split("\n")
    assert len(lines) == 12 and max(map(len, lines)) <= 110
    assert lines[-1].endswith("minirlhf chat runs/quickstart/ppo")
    story = "\n".join(lines)
    for number in ("212 s", "900 MiB", "0.91 bits", "79.0%", "83.0%", "2.50", "80.0%", "256", "9.0 nats"):
        assert number in story


def test_the_story_does_not_claim_what_the_intervals_do_not_bear():
    assert "raised the true reward" in three_sentences(SUMMARY)[2]
    touching = copy.deepcopy(SUMMARY)
    touching["true_reward"]["ppo"] = reward(1.4)
    assert "did not surely raise" in three_sentences(touching)[2] and "not surely better" in console_story(touching)


def test_amounts_are_said_as_a_person_says_them():
    assert [amount(n) for n in (7, 9_999, 35_400, 999_499, 999_500, 12_340_000)] == [
        "7", "9999", "35 thousand", "999 thousand", "1.0 million", "12.3 million",
    ]  # fmt: skip


def test_a_figure_keeps_its_text_as_text_and_its_name_escaped():
    svg = plots.grouped_bars('a "name" <x>', {"50 $ & more": {"base": (1.0, (0.5, 1.5))}}, "<units> $", 2)
    text = "".join(Page(svg).text)
    assert "50 $ & more" in text and "<units> $" in text


def test_a_whisker_shows_the_interval():
    bars = [
        plots.grouped_bars("same", {"kind": {"base": (1.0, interval)}}, "reward", 1)
        for interval in ((0.5, 1.5), (0.9, 1.1), (0.9, 1.1))
    ]
    assert bars[0] != bars[1] and bars[1] == bars[2]
