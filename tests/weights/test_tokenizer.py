"""Real tokenizers, tiny; each is loaded and rendered in the real sandbox."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.findings import Finding
from app.weights import sandbox, tokenizer
from app.weights.tokenizer import check_tokenizer

TEXT = ["the quick brown fox jumps over the lazy dog", "what is two and three", "you are a helpful assistant"] * 4
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Else each fork would do it anew."""
    import sentencepiece  # noqa: F401
    import transformers.convert_slow_tokenizer  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401


@pytest.fixture(scope="module")
def bpe() -> str:
    """A tokenizer.json of 300 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(TEXT, trainer)
    assert made.get_vocab_size() == 300
    return str(made.to_str())


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    """A tokenizer.model of 300 tokens."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=written, vocab_size=300, model_type="bpe", byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


@pytest.fixture
def write(tmp_path: Path, bpe: str) -> Write:
    """Makes a sound folder; each file can be replaced, or left out by None."""

    def write(config: dict[str, Any] | None = None, template: str | None = TEMPLATE, **files: object) -> Path:
        described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        whole: dict[str, object] = {
            "config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300},
            "tokenizer.json": bpe,
            "tokenizer_config.json": described | (config or {}),
            "chat_template.jinja": template,
        }
        for name, content in (whole | {name.replace("__", "."): content for name, content in files.items()}).items():
            if content is not None:
                data = content if isinstance(content, (bytes, str)) else json.dumps(content)
                (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return tmp_path

    return write


def one(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_a_sound_tokenizer(write: Write):
    assert check_tokenizer(write(), 300) == []


def test_the_demo_models_tokenizer(demo_model_folder: Path):
    assert check_tokenizer(demo_model_folder, 49152) == []


def test_only_a_tokenizer_json(write: Write):
    assert check_tokenizer(write(tokenizer_config__json=None), 300) == []


def test_only_a_sentencepiece_model(write: Write, sentencepiece_model: bytes):
    folder = write(tokenizer__json=None, tokenizer_config__json=None, tokenizer__model=sentencepiece_model)
    assert check_tokenizer(folder, 320) == []
    assert one(check_tokenizer(folder, 100)).file == "tokenizer.model"


def test_a_template_in_the_config(write: Write):
    assert check_tokenizer(write({"chat_template": TEMPLATE}, None), 300) == []


def test_several_templates(write: Write):
    templates = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "{{ broken"}]
    assert check_tokenizer(write({"chat_template": templates}, None), 300) == []


def test_a_template_may_refuse_a_system_message(write: Write):
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    assert check_tokenizer(write(template=refusing), 300) == []


# ---- loading


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer__json": "{"}, "line 1 column"),
        ({"tokenizer__json": "{}"}, ""),
        ({"tokenizer__json": "\0" * 1000}, ""),
        ({"tokenizer__json": None}, "Couldn't instantiate the backend tokenizer from one of: (1) "),
        ({"tokenizer__json": None, "tokenizer_config__json": {"tokenizer_class": "LlamaTokenizer"}}, "no vocabulary"),
        ({"tokenizer__json": None, "tokenizer__model": b"no such model"}, ""),
        ({"tokenizer_config__json": "{"}, "JSONDecodeError"),
        ({"tokenizer_config__json": "[]"}, ""),
        ({"tokenizer_config__json": "[" * 100_000}, "RecursionError"),
    ],
)
def test_unloadable(write: Write, files: dict[str, object], words: str):
    folder = write(**files)
    found = one(check_tokenizer(folder, 300))
    assert (found.code, found.severity) == ("tokenizer_unloadable", "error")
    assert found.found
    assert words in found.found
    assert str(folder) not in found.found
    assert "\n" not in found.found


def test_a_folder_without_a_tokenizer(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert one(check_tokenizer(tmp_path, 300)).code == "tokenizer_unloadable"


@pytest.mark.parametrize("auto_map", [{"AutoTokenizer": ["tokenization.Evil", None]}, ["tokenization.Evil", None]])
def test_code_is_never_run(write: Write, tmp_path: Path, auto_map: object):
    folder = write({"auto_map": auto_map, "tokenizer_class": "Evil"})
    (folder / "tokenization.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    found = one(check_tokenizer(folder, 300))
    assert (found.code, found.file) == ("needs_remote_code", "tokenizer_config.json")
    assert found.found == 'auto_map: ["tokenization.Evil", null]'
    assert not (tmp_path / "ran").exists()


def test_code_for_something_else_does_not_matter(write: Write):
    assert check_tokenizer(write({"auto_map": {"AutoConfig": "configuration.Other"}}), 300) == []


_FRESH = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from app.weights import tokenizer
tokenizer.MEMORY_BYTES = 1 << 20
print(*(found.code for found in tokenizer.check_tokenizer(Path(sys.argv[1]), 49152)))
"""


def test_too_much_memory(demo_model_folder: Path):
    """In a process of its own: the tests' has freed memory that a fork of it can use without asking the system."""
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, str(demo_model_folder)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.split() == ["tokenizer_unloadable"]


def test_too_much_time(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "TIME_S", 0.01)
    found = one(check_tokenizer(write(), 300))
    assert (found.code, found.found) == ("tokenizer_unloadable", "it took longer than 0.01 s")


def test_a_system_that_cannot_confine_is_not_the_tokenizers_fault(write: Write, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **limits: object) -> None:
        raise OSError(1, "no")

    monkeypatch.setattr(sandbox, "confine", refuse)
    with pytest.raises(sandbox.SandboxFailed):
        check_tokenizer(write(), 300)


# ---- vocabulary


def test_more_tokens_than_the_embedding_has_rows(write: Write):
    found = one(check_tokenizer(write(), 299))
    assert (found.code, found.severity) == ("vocabulary_mismatch", "error")
    assert (found.found, found.expected) == ("300 tokens", "at most 299, the rows of the embedding")


def test_fewer_tokens_than_rows_are_fine(write: Write):
    assert check_tokenizer(write(), 4096) == []


def test_nothing_is_said_of_an_embedding_that_is_not_known(write: Write):
    assert check_tokenizer(write(), None) == []


def test_added_tokens_that_nobody_uses_are_a_warning(write: Write):
    added = {"300": {"content": "<image>", "special": True}}
    found = one(check_tokenizer(write({"added_tokens_decoder": added}), 300))
    assert (found.code, found.severity, found.found) == ("vocabulary_mismatch", "warning", "301 tokens")


def test_added_tokens_that_the_template_uses_are_an_error(write: Write):
    added = {"300": {"content": "<|user|>", "special": True}}
    found = one(check_tokenizer(write({"added_tokens_decoder": added}), 300))
    assert (found.code, found.severity) == ("vocabulary_mismatch", "error")


# ---- chat template


@pytest.mark.parametrize("template", [None, ""])
def test_no_template(write: Write, template: str | None):
    found = one(check_tokenizer(write(template=template), 300))
    assert (found.code, found.severity) == ("chat_template_missing", "warning")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ broken", "TemplateSyntaxError"),
        ("{{ messages[0].nothing.more }}", "UndefinedError"),
        ("{{ raise_exception('never') }}", "TemplateError: never"),
        ("always the same", "what the user said last is missing"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0]['content'] * 10000 }}" + TEMPLATE, "more than 65536 characters"),
        ("{{ 'x' * 100000000000 }}", "memory"),
        ("{% set a = range(99999) | list %}{% for i in a %}{% for j in a %}{% endfor %}{% endfor %}", "too long"),
        ("{{ 9 ** (9 ** 9) }}", "too long"),
    ],
)
def test_a_broken_template(write: Write, template: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "RENDER_TIME_S", 0.5)
    found = one(check_tokenizer(write(template=template), 300))
    assert (found.code, found.file) == ("chat_template_broken", "chat_template.jinja")
    assert found.found
    assert words in found.found


def test_a_broken_template_does_not_hide_the_vocabulary(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "RENDER_TIME_S", 0.2)
    findings = check_tokenizer(write({"chat_template": "{{ 9 ** (9 ** 9) }}"}, None), 299)
    assert [found.code for found in findings] == ["vocabulary_mismatch", "chat_template_broken"]
    assert findings[1].file == "tokenizer_config.json"
