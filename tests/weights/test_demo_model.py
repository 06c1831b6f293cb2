import hashlib
import json
from pathlib import Path

import pytest

from app.weights import demo_model
from app.weights.folder import check_folder

pytestmark = pytest.mark.timeout(300)  # the first to come converts the model, and the others wait for it

WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"


def test_the_folder_is_a_model(demo_model_folder: Path):
    assert check_folder(demo_model_folder) == []
    assert not [path for path in demo_model_folder.parent.iterdir() if path.name.endswith(".partial")]


def test_the_weights_are_always_the_same(demo_model_folder: Path):
    with (demo_model_folder / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WEIGHTS_SHA256


def test_a_folder_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_model, "_convert", lambda *args: pytest.fail("converted again"))
    demo_model.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(source: Path, folder: Path, on_step: object) -> None:
        (folder / "left-over").touch()
        raise KeyboardInterrupt

    def convert(source: Path, folder: Path, on_step: object) -> None:
        (folder / source.name).touch()

    target = tmp_path / "model"
    monkeypatch.setattr(demo_model, "_convert", die)
    with pytest.raises(KeyboardInterrupt):
        demo_model.prepare(target)
    assert not target.exists()
    monkeypatch.setattr(demo_model, "_convert", convert)
    demo_model.prepare(target)
    assert [path.name for path in target.iterdir()] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_it_answers(demo_model_folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model_folder)
    model = AutoModelForCausalLM.from_pretrained(demo_model_folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert (
        answer[-1]
        == tokenizer.eos_token_id
        == json.loads((demo_model_folder / "config.json").read_text())["eos_token_id"]
    )


def test_digits_are_tokens_of_their_own(demo_model_folder: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(demo_model_folder / "tokenizer.json"))
    text = "It's 2026, \n\t中文 <|im_end|>"
    encoded = tokenizer.encode(text)
    assert [token for token in encoded.tokens if token.isdigit()] == ["2", "0", "2", "6"]
    assert encoded.ids[-1] == 2
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
