"""The benchmarks' own arithmetic, and the tables of their README: made from the JSON files, never by hand."""

import json
import math

import pytest

from benchmarks.suite import RESULTS, Bar, Growth, Job, Table, exponent, options, ratio, run, write
from benchmarks.table import BEGIN, README, generated, results


def test_the_readme_shows_what_the_result_files_say():
    made = README.read_text(encoding="utf-8").split(BEGIN)[1].strip()
    assert made == generated().strip(), "python -m benchmarks.table writes it again"


def test_every_result_file_of_the_suite_names_its_machine_and_its_bars():
    for content in results():
        assert content["machine"] and content["date"], content["idea"]
        for bar in content["bars"]:
            assert set(bar) == {"name", "value", "sense", "target"}
            assert bar["sense"] in ("<=", ">=")
        assert (RESULTS / f"{content['idea']}.json").exists()


def test_the_exponent_is_the_power_of_a_power_law():
    assert exponent([(size, 3 * size**1.5) for size in (1, 2, 8, 64)]) == pytest.approx(1.5, abs=1e-12)


def test_a_ratio_compares_within_rounds():
    """The machine slows down tenfold in the second round and in the third; the ratio does not notice."""
    ours = [{"rate": 20.0}, {"rate": 2.0}, {"rate": 3.0}]
    theirs = [{"rate": 10.0}, {"rate": 1.0}, {"rate": 1.0}]
    table = Table("", "rate", {"minirlhf": ours, "peer": theirs})
    assert ratio(table, "minirlhf", "peer") == 2.0
    assert math.isnan(ratio(table, "minirlhf", "a peer that is not installed"))


@pytest.mark.parametrize(("sense", "value", "held"), [("<=", 1.0, True), ("<=", 1.1, False), (">=", 0.9, False)])
def test_bars(sense, value, held):
    assert Bar("", value, sense, 1.0).held is held


def test_a_worker_is_another_process():
    measured = run(Job("suite", "versions"))
    assert measured["torch"]
    assert measured["peak_rss_mib"] > 0


def test_a_missing_environment_is_left_out_but_a_mistake_is_not():
    assert run(Job("suite", "versions", python="/no/such/python")) is None
    with pytest.raises(RuntimeError, match="no_such_benchmark"):
        run(Job("no_such_benchmark", "work"))


def test_what_is_written_can_be_shown(tmp_path):
    flags = options("").parse_args(["--out", str(tmp_path)])
    table = Table("a step", "steps_per_second", {"minirlhf": [{"steps_per_second": 2.0, "peak_rss_mib": 1.0}]})
    growth = Growth("a step", "tokens", "seconds", {"minirlhf": [(1, 1.0), (2, 4.0)]})
    bars = [Bar("fast", 2.0, ">=", 1.0), Bar("against a peer that is missing", math.nan, ">=", 1.0)]
    write("step", "Steps", flags, [table], bars, [growth], ["noted"])
    assert [bar["name"] for bar in json.loads((tmp_path / "step.json").read_text(encoding="utf-8"))["bars"]] == ["fast"]
    text = generated(tmp_path)
    for shown in ("| fast | ≥ 1 | 2 | held |", "| minirlhf | 1 | 4 | 2.00 |", "step.svg", "step_growth.svg", "- noted"):
        assert shown in text
    assert (tmp_path / "step.svg").read_text(encoding="utf-8").count("minirlhf") == 1


def test_measuring_a_part_leaves_the_rest_as_it_was(tmp_path):
    both = options("", parts=("a", "b")).parse_args(["--out", str(tmp_path)])
    only = options("", parts=("a", "b")).parse_args(["--out", str(tmp_path), "--only", "b"])

    def measured(title, value, flags):
        tables = [Table(name, "rate", {"minirlhf": [{"rate": value, "peak_rss_mib": 1.0}]}) for name in title]
        path = write("parts", "Parts", flags, tables, [Bar(f"{name} fast", value, ">=", 0.0) for name in title])
        return json.loads(path.read_text(encoding="utf-8"))

    measured("ab", 1.0, both)
    found = measured("b", 2.0, only)
    assert [(table["title"], table["runs"]["minirlhf"][0]["rate"]) for table in found["tables"]] == [
        ("a", 1.0),
        ("b", 2.0),
    ]
    assert [(bar["name"], bar["value"]) for bar in found["bars"]] == [("a fast", 1.0), ("b fast", 2.0)]


def test_what_was_never_reached_is_drawn_as_such(tmp_path):
    flags = options("").parse_args(["--out", str(tmp_path)])
    runs = {"minirlhf": [{"seconds": 2.0, "peak_rss_mib": 1.0}], "peer": [{"seconds": math.inf, "peak_rss_mib": 1.0}]}
    write("race", "A race", flags, [Table("until then", "seconds", runs)])
    assert "never" in (tmp_path / "race.svg").read_text(encoding="utf-8")
    assert "| peer | inf | 0.00 × |" in generated(tmp_path)
