"""Reading metrics: what a killed run leaves is read, what is corrupt is refused by file and line."""

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from minirlhf.errors import UserError
from minirlhf.evaluation.metrics_file import Series, keys_of, read_metrics, series

GOOD = b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null, "val": 1}\n'


def write(folder, data):
    (folder / "metrics.jsonl").write_bytes(data)
    return folder


def test_rows_and_series(tmp_path):
    rows = read_metrics(write(tmp_path, GOOD + b'\n{"step": 4, "loss": 1.5}\n'))
    assert [row["step"] for row in rows] == [1, 2, 4]
    assert math.isnan(rows[1]["loss"])
    loss = series(rows, "loss")
    assert loss.steps.tolist() == [1, 4] and loss.values.tolist() == [2.5, 1.5]
    assert len(series(rows, "absent")) == 0
    assert keys_of(rows) == ["step", "loss", "val"]
    assert read_metrics(tmp_path / "metrics.jsonl")[0] == rows[0]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_half_written_last_line_is_left_out_wherever_it_breaks(tmp_path, cut):
    whole = json.dumps({"step": 3, "loss": 1.25}).encode()
    assert cut < len(whole)
    assert len(read_metrics(write(tmp_path, GOOD + whole[:cut]))) == 2
    assert len(read_metrics(write(tmp_path, GOOD + whole))) == 3  # whole, only its line end is missing
    assert len(read_metrics(write(tmp_path, GOOD + '{"step": 3, "é'.encode()[:-1]))) == 2  # half a character


@pytest.mark.parametrize(
    "line, says",
    [
        (b'{"step": 2, "lo', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"\x00\x00\x00", "not JSON"),
        (b"[1, 2]", "not a metrics row"),
        (b'{"loss": 1}', "not a metrics row"),
        (b'{"step": 2, "loss": "low"}', 'field "loss"'),
        (b'{"step": 2, "loss": true}', 'field "loss"'),
    ],
)
def test_a_corrupt_line_is_named(tmp_path, line, says):
    with pytest.raises(UserError) as error:
        read_metrics(write(tmp_path, GOOD + line + b'\n{"step": 9, "loss": 1}\n'))
    assert says in str(error.value) and "metrics.jsonl:3" in str(error.value)


def test_no_file_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="no metrics"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match="not logged a single step"):
        read_metrics(write(tmp_path, b"\n"))


def test_noise_is_the_standard_deviation_around_a_slow_trend():
    generator = np.random.default_rng(0)
    steps = np.arange(4000.0)
    curve = Series(steps, 5 * np.exp(-steps / 800) + generator.normal(0, 0.3, 4000))
    assert_allclose(curve.noise, 0.3, rtol=0.08)  # a median of 4000 differences is known to about 2.5 %
