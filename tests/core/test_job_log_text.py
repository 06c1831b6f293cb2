"""Logs as people may see them."""

import time

import pytest

from app.core.job_logs import JobLog, count_lines, readable


def texts(log: JobLog) -> list[str]:
    return [line.text for line in log.lines]


def test_lines():
    assert readable("") == JobLog()
    assert readable("one\n\ntwo\n").lines == ((1, "one"), (2, ""), (3, "two"))
    assert readable("one\ntwo").lines == ((1, "one"), (2, "two"))


@pytest.mark.parametrize(("text", "count"), [("", 0), ("one", 1), ("one\n", 1), ("one\ntwo", 2), ("\n\n", 2)])
def test_lines_are_counted(text: str, count: int):
    assert count_lines(text) == len(readable(text).lines) == count


def test_lines_that_were_seen_need_not_be_read_again():
    assert readable("one\ntwo\nthree\n", after=2).lines == ((3, "three"),)
    assert readable("one\ntwo\n", after=2) == JobLog()
    assert readable("one\ntwo\nthree\n", 10, after=1).lines == readable("one\ntwo\nthree\n", 10).lines


def test_secrets_are_hidden():
    assert texts(readable("mu-" + "k" * 43 + "\ntoken=abcdefgh\n")) == ["mu-***", "token=***"]


@pytest.mark.parametrize("limit", range(1, 40))
def test_the_end_is_kept_in_whole_lines(limit: int):
    text = "".join(f"line {number}\n" for number in range(8))
    log = readable(text, limit)
    kept = len(log.lines)
    assert sum(len(line.text) + 1 for line in log.lines) <= limit
    assert kept >= limit // 7 - 1
    assert log.lines == tuple((number + 1, f"line {number}") for number in range(8 - kept, 8))
    assert log.note == f"The first {8 - kept} lines are left out."


def test_one_endless_line_is_left_out():
    assert readable("x" * 100, 10) == JobLog()
    assert texts(readable("x" * 100 + "\nend\n", 10)) == ["end"]


def test_paths_are_cut_to_their_last_part():
    assert texts(readable('File "/opt/lib/jobs/upload.py", line 5')) == ['File "upload.py", line 5']


def test_a_progress_bar_is_its_last_state_and_nothing_moves_a_terminal_s_cursor():
    assert texts(readable(" 1%\r 50%\r100%\nnext\r\n")) == ["100%", "next"]
    assert "\x1b" not in str(readable("\x1b[2J\x1b]0;title\x07"))


def test_search_is_for_text_and_case_does_not_count():
    log = readable("Loss 1\nother\nLOSS (2)\n")
    assert log.matching("loss").lines == ((1, "Loss 1"), (3, "LOSS (2)"))
    assert log.matching("(").lines == ((3, "LOSS (2)"),)


@pytest.mark.parametrize(
    "text", ["/" * 200_000, "/a" * 200_000, "a:" * 200_000, "secret= " * 50_000, "@" * 200_000, "\r" * 200_000]
)
def test_hostile_lines_cost_little(text: str):
    started = time.process_time()
    readable(text)
    assert time.process_time() - started < 2
