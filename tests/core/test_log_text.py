"""Lines of logs as others may read them: secrets, paths, terminals."""

import pytest

from app.core.keys import issue_key
from app.core.log_text import MAX_CHARACTERS, clean, without_secrets


def test_keys_are_not_in_logs() -> None:
    key = issue_key()
    for line in (f"key {key}", f"{key}", f"Authorization: Bearer {key}", f'"{key}",', f"x{key}y"):
        assert key not in clean(line)
        assert key[3:20] not in clean(line)
    assert "abcdefgh12345678" not in clean("authorization: bearer abcdefgh12345678")
    assert clean("the bearer of news") == "the bearer of news"


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
        ("key \x1b[32mAKIAIOSFODNN7EXAMPLE\x1b[0m used", "key *** used"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = ***"),
        ('{"SecretAccessKey": "x", "password": "hunter22"}', '{"SecretAccessKey": "x", "password": "***"}'),
        ("GET http://h/?X-Amz-Signature=0123abcdef&x=1", "GET http://h/?X-Amz-Signature=***&x=1"),
        ("postgresql://me:pass@host/db", "postgresql://***@host/db"),
        ("Authorization: Bearer abcd.efgh", "Authorization: Bearer ***"),
        ("mu-" + "k" * 43, "mu-***"),
        ("hf_abcdefghijklmnopqrstuvwx", "***"),
        ("token=abcdefgh", "token=***"),
    ],
)
def test_secrets_are_hidden(line: str, cleaned: str) -> None:
    assert clean(line) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "lm loss: 1.25 | elapsed time per iteration (ms): 812.5",
        "tokens: 123456",
        "token: 123456",
        "s3://bucket/folder",
        "special token: <s>",
        "copying: 5 of 10 MiB",
        "{'eos_token': '</s>', 'pad_token': '<|endoftext|>'}",
        "max_num_batched_tokens=8192, tokenizer='model', tokenizer_mode=auto, hf_token=None",
        "GPU KV cache size: 1,234,567 tokens",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("INFO [engine.py:12] loaded\n", "INFO [engine.py:12] loaded"),
        ("  indented\twith a tab  ", "  indented\twith a tab"),
        ("\x1b[32mgreen\x1b[0m \x1b[1;31mred", "green red"),
        ("10 %\r50 %\r100 %\n", "100 %"),
        ("a\x00b\x07c\u2028d\x85e", "a b c d e"),
        ('File "/opt/app/unit/engine.py", line 3', 'File "engine.py", line 3'),
        ("中文也行", "中文也行"),
        ("\n", ""),
    ],
)
def test_lines_are_fit_to_be_read(line: str, cleaned: str) -> None:
    assert clean(line) == cleaned


def test_no_line_is_endless() -> None:
    long = clean("x" * 100_000)
    assert len(long) == MAX_CHARACTERS
    assert long.endswith("(cut)")
    assert clean("y" * MAX_CHARACTERS) == "y" * MAX_CHARACTERS
