"""What the clock adds to rows: arithmetic per second, utilisation, and what compiling took."""

import time

import pytest
import torch

from minirlhf.parallel.ranks import ALONE
from minirlhf.records import Report
from minirlhf.runs import speed as run_speed
from minirlhf.runs.options import RunOptions
from minirlhf.runs.speed import SETTLED, cold_start, with_throughput

CPU = torch.device("cpu")


def reports(steps, start=0, first=0.0, usual=0.0):
    for step in range(start, steps):
        time.sleep(first if step == start else usual)
        yield Report(step + 1, {"loss_nats_per_token": 1.0}, {"kl_coef": 2.0})


def told(tmp_path, made, steps, compiled=False, flops=None):
    options = RunOptions(tmp_path / "run", compile=compiled)
    return list(with_throughput(options, made, steps, CPU, ALONE, flops))


def test_without_anything_to_tell_the_reports_are_what_they_were(tmp_path):
    assert told(tmp_path, reports(3), 3) == list(reports(3))


def test_arithmetic_per_second_is_that_of_the_step_and_not_of_what_the_caller_does(tmp_path):
    options, rates = RunOptions(tmp_path / "run"), []
    for report in with_throughput(options, reports(3, 1, 0.02, 0.02), 3, CPU, ALONE, lambda step: 100.0 * step):
        rates.append(report.metrics["model_flops_per_second"] / (report.step - 1))
        assert "model_flop_utilisation" not in report.metrics and report.state == {"kl_coef": 2.0}
        time.sleep(0.1)
    assert len(rates) == 2 and all(100 / 0.09 < rate <= 100 / 0.02 for rate in rates)


def test_utilisation_is_the_share_of_what_the_gpus_of_all_ranks_could_do(tmp_path, monkeypatch):
    monkeypatch.setattr(run_speed, "peak_flops_per_second", lambda name, precision: 1e6)
    (report,) = told(tmp_path, reports(1, 0, 0.01), 1, flops=lambda step: 5e3)
    metrics = report.metrics
    assert metrics["model_flop_utilisation"] == pytest.approx(metrics["model_flops_per_second"] / 1e6)
    assert 0.05 < metrics["model_flop_utilisation"] <= 0.5


@pytest.mark.parametrize("steps", [3, SETTLED, SETTLED + 3])
def test_compiling_is_told_once(tmp_path, capsys, steps):
    rows = told(tmp_path, reports(steps + 2, 2, first=0.2, usual=0.01), steps + 2, compiled=True)
    ((step, seconds),) = [(r.step, r.metrics["compile_seconds"]) for r in rows if "compile_seconds" in r.metrics]
    assert step == 2 + min(steps, SETTLED)
    assert 0.1 < seconds < 0.25
    assert "compiling took 0.2 s; a step now takes 0.01" in capsys.readouterr().out


def test_one_step_alone_cannot_tell(tmp_path):
    assert told(tmp_path, reports(1), 1, compiled=True) == list(reports(1))


def test_a_cold_start_is_what_exceeds_the_usual_step():
    assert cold_start([5.0, 1.0, 2.0, 1.0, 1.0, 1.0, 4.0, 1.0]) == (8.0, 1.0)
    assert cold_start([1.0, 2.0, 2.0]) == (0.0, 2.0)
