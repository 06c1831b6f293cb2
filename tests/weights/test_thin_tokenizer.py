"""Large tokenizers are loaded without their merges, which are checked as the library would check them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from app.weights import thin_tokenizer
from app.weights.sandbox import SandboxFailed
from app.weights.thin_tokenizer import FILE, thin_out
from app.weights.tokenizer import check_tokenizer

VOCABULARY = {token: place for place, token in enumerate(["<s>", "a", "b", "c", "ab", "abc", "##b", "b c"])}
Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """The sandbox may not start the threads that this starts."""
    from transformers import AutoTokenizer  # noqa: F401


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin_tokenizer, "LARGE_BYTES", 0)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder whose tokenizer has this model."""

    def write(**model: Any) -> Path:
        whole = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": VOCABULARY} | model}
        (tmp_path / FILE).write_text(json.dumps(whole))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "chat_template": "{{ messages }}"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        return tmp_path

    return write


def thin(folder: Path) -> str | None:
    return thin_out(folder, memory_bytes=1 << 28, time_s=60)


def model_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / FILE).read_text())["model"])


@pytest.mark.parametrize(
    "model",
    [
        {"merges": [["a", "b"], ["ab", "c"]]},
        {"merges": ["a b", "ab c"]},
        {"merges": ["#version: 0.2", "a b"]},
        {"merges": [["a", "##b"]], "continuing_subword_prefix": "##"},
        {"merges": []},
        {"merges": [["a", "d"]]},
        {"merges": [["d", "a"]]},
        {"merges": [["b", "a"]]},
        {"merges": [["a", "##b"]]},
        {"merges": ["a b c"]},
        {"merges": ["ab"]},
        {"merges": [["a", "b", "c"]]},
        {"merges": [["a", 1]]},
        {"merges": [["a", None]]},
        {"merges": [{"a": "b"}]},
        {"merges": [5]},
    ],
    ids=str,
)
def test_merges_are_refused_where_the_library_refuses_them(write: Write, model: dict[str, Any]):
    folder = write(**model)
    try:
        Tokenizer.from_file(str(folder / FILE))
        accepted = True
    except BaseException:  # a panic of Rust's is no Exception
        accepted = False
    problem = thin(folder)
    assert (problem is None) == accepted, problem
    assert model_in(folder)["merges"] == ([] if accepted else model["merges"])
    assert not (folder / ".thin").exists()


def test_everything_else_stays(write: Write):
    folder = write(merges=[["a", "b"]], unk_token="<s>", byte_fallback=True)
    before = json.loads((folder / FILE).read_text())
    assert thin(folder) is None
    before["model"]["merges"] = []
    assert json.loads((folder / FILE).read_text()) == before


def test_the_finding_names_the_token(write: Write):
    (found,) = check_tokenizer(write(merges=[["a", "d"]]), 8)
    assert (found.code, found.file) == ("tokenizer_unloadable", FILE)
    assert "'d', which is not in the vocabulary" in (found.found or "")


@pytest.mark.parametrize(
    "model",
    [{"type": "WordLevel", "unk_token": "a"}, {"vocab": [["a", 0.5]], "type": "Unigram", "unk_id": 0}, {"vocab": 5}],
)
def test_models_without_merges_are_left_alone(write: Write, model: dict[str, Any]):
    folder = write(**model)
    before = (folder / FILE).read_bytes()
    assert thin(folder) is None
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"model": []}', "[" * 100_000, '{"model": {"merges": 1, "vocab": {}}}']
)
def test_what_makes_no_sense_is_left_to_the_library(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    assert thin(tmp_path) is None
    assert (tmp_path / FILE).read_text() == text


def test_small_ones_and_none_are_left_alone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thin_tokenizer, "LARGE_BYTES", 1 << 20)
    folder = write(merges=[["a", "b"]])
    assert thin(folder) is None
    assert model_in(folder)["merges"] == [["a", "b"]]
    (folder / FILE).unlink()
    assert thin(folder) is None


def test_a_hostile_file_takes_no_more_than_its_limit(tmp_path: Path):
    (tmp_path / FILE).write_text("[" + "[]," * 8_000_000 + "[]]")
    with pytest.raises(SandboxFailed) as failure:
        thin(tmp_path)
    assert failure.value.kind in ("memory", "crash")
    assert not (tmp_path / ".thin").exists()


def test_an_ordinary_token_beyond_the_embedding_is_an_error_whether_the_sample_has_it_or_not(write: Write):
    folder = write(vocab=VOCABULARY | {"cb": 99}, merges=[["c", "b"]])
    findings = check_tokenizer(folder, 50)
    assert ("vocabulary_mismatch", "error") in [(found.code, found.severity) for found in findings], findings
