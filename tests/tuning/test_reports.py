"""What is told of an iteration."""

import re

import pytest

from app.tuning.reports import Report, remaining_s


def report_of(iteration: int, elapsed_s: float = 2.0, validation_loss: float | None = None) -> Report:
    return Report(
        iteration=iteration, iterations=10, loss=1.5, learning_rate=2e-5, gradient_norm=0.3, elapsed_s=elapsed_s,
        tokens=3200, trained_tokens=1000, rows=32, cards=2, at_s=0.0, validation_loss=validation_loss,
    )  # fmt: skip


def test_a_line_has_the_keys_that_people_and_programs_search_for():
    line = report_of(3, validation_loss=1.25).line(3661)
    values = dict(part.split(": ", 1) for part in re.findall(r"[^|]+: [^|]+?(?= \|)", line))
    told = {name.strip(): value for name, value in values.items()}
    assert line.startswith("iteration 3/10 |")
    assert told["lm loss"] == "1.500000E+00"
    assert told["validation loss"] == "1.250000E+00"
    assert told["elapsed time per iteration (ms)"] == "2000.0"
    assert told["remaining"] == "1:01:01"
    # tokens = global batch size x SEQ_LEN; per card and second: over the time and the cards
    tokens = int(told["global batch size"]) * float(told["SEQ_LEN"])
    assert tokens == 3200
    assert float(told["tokens per second per card"]) == pytest.approx(tokens / 2.0 / 2)


def test_what_remains_is_told_by_the_last_iterations():
    assert remaining_s([]) == 0
    assert remaining_s([report_of(1), report_of(2)]) == pytest.approx(16)
    assert remaining_s([report_of(1, 100.0), *(report_of(n, 1.0) for n in range(2, 3))] * 1) == pytest.approx(8 * 50.5)
    assert remaining_s([report_of(10)]) == 0
