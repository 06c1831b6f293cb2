"""Which tokens of a conversation are learnt: those that the assistant writes, as each family of models writes them."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from app.tuning.data.conversations import Conversation, Turn
from app.tuning.data.problems import DataProblems
from app.tuning.data.samples import Sample, samples_of
from app.tuning.data.tokenizer import TokenizerUnusable, load_tokenizer
from tests.tuning import templates

TWO = (Turn("user", "2+2?"), Turn("assistant", "4"), Turn("user", "Grüße 😀?"), Turn("assistant", "6 谢谢\n\nbye 😀"))
WITH_SYSTEM = (Turn("system", "be brief"), *TWO)
REASONED = (
    Turn("user", "a?"), Turn("assistant", "<think>\nhm\n</think>\n\nA"),
    Turn("user", "b?"), Turn("assistant", "<think>\nso\n</think>\n\nB"),
)  # fmt: skip


def learnt(sample: Sample, tokenizer: Any) -> list[str]:
    """The runs of tokens that are learnt, as text."""
    pairs = zip(sample.input_ids, sample.trained, strict=True)
    runs = [(trained, [pair[0] for pair in run]) for trained, run in groupby(pairs, key=lambda pair: pair[1])]
    return [tokenizer.decode(ids) for trained, ids in runs if trained]


def samples(conversation: Conversation, tokenizer: Any, max_length: int | None = None) -> list[Sample]:
    return list(samples_of([conversation], tokenizer, max_length))


ANSWERS = ["4", "6 谢谢\n\nbye 😀"]
FAMILIES = [
    # template, the token that ends a turn, conversation, what each sample teaches
    ("SMOLLM2", "<|im_end|>", TWO, [[f"{said}<|im_end|>" for said in ANSWERS]]),
    ("CHATML", "<|im_end|>", WITH_SYSTEM, [[f"{said}<|im_end|>" for said in ANSWERS]]),
    ("LLAMA_3", "<|eot_id|>", WITH_SYSTEM, [[f"{said}<|eot_id|>" for said in ANSWERS]]),
    ("MISTRAL", "</s>", TWO, [[f" {said}</s>" for said in ANSWERS]]),
    ("MARKED", "<|im_end|>", WITH_SYSTEM, [[f"{said}<|im_end|>" for said in ANSWERS]]),
    ("MARKED_WITHOUT_END", "<|im_end|>", TWO, [[f"{said}<|im_end|>" for said in ANSWERS]]),
    ("PLAIN", "<|im_end|>", TWO, [[f"{said}\n\n" for said in ANSWERS]]),
    # Reasoning of earlier turns is left out: each turn is learnt where it is the last.
    (
        "QWEN_3", "<|im_end|>", REASONED,
        [["<think>\nhm\n</think>\n\nA<|im_end|>"], ["<think>\nso\n</think>\n\nB<|im_end|>"]],
    ),
    (
        "QWEN_3", "<|im_end|>", TWO[:2], [["<think>\n\n</think>\n\n4<|im_end|>"]],
    ),
    # The prompt to go on ends with "<think>", which finished turns do not show.
    ("DEEPSEEK_R1", "<|eos|>", REASONED, [["\n\nA<|eos|>", "\n\nB<|eos|>"]]),
    ("DEEPSEEK_R1", "<|eos|>", (Turn("user", "a?"), Turn("assistant", "<b>A")), [["<b>A<|eos|>"]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "end", "conversation", "taught"), FAMILIES)
def test_what_the_assistant_writes_is_learnt(name: str, end: str, conversation: Conversation, taught: list[list[str]]):
    tokenizer = templates.tokenizer(getattr(templates, name), end)
    assert [learnt(sample, tokenizer) for sample in samples(conversation, tokenizer)] == taught


@pytest.mark.parametrize(("name", "end", "conversation", "taught"), FAMILIES)
def test_samples_are_what_the_model_reads_when_it_chats(
    name: str, end: str, conversation: Conversation, taught: list[list[str]]
):
    """The last sample is the conversation as transformers tokenizes it."""
    tokenizer = templates.tokenizer(getattr(templates, name).replace("strftime_now('%d %b %Y')", "'26 Jul 2024'"), end)
    messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
    *_, last = samples(conversation, templates.tokenizer(getattr(templates, name), end))
    assert last.input_ids == tokenizer.apply_chat_template(messages, return_dict=False)


def test_marks_give_what_transformers_gives_but_for_what_follows_the_end_of_a_turn():
    tokenizer = templates.tokenizer(templates.MARKED)
    messages = [{"role": turn.role, "content": turn.content} for turn in TWO]
    theirs = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    (sample,) = samples(TWO, tokenizer)
    pairs = zip(theirs["assistant_masks"], sample.trained, strict=True)
    differ = [number for number, (mask, trained) in enumerate(pairs) if mask != trained]
    assert {tokenizer.decode([sample.input_ids[number]]) for number in differ} == {"\n"}


def test_a_sample_is_cut_at_its_end():
    tokenizer = templates.tokenizer(templates.CHATML)
    (whole,) = samples(TWO, tokenizer)
    (cut,) = samples(TWO, tokenizer, 30)
    assert (cut.input_ids, cut.trained, cut.length) == (whole.input_ids[:30], whole.trained[:30], len(whole.input_ids))
    assert cut.useful
    (nothing,) = samples(TWO, tokenizer, 10)
    assert not nothing.useful


def test_a_conversation_that_the_template_refuses_is_told_with_its_line():
    tokenizer = templates.tokenizer(templates.MISTRAL, "</s>")
    refused = tuple(Turn(turn.role, turn.content, line=7) for turn in WITH_SYSTEM)
    with pytest.raises(DataProblems) as found:
        list(samples_of([TWO, refused, TWO], tokenizer))
    (problem,) = found.value.problems
    assert problem.line == 7
    assert problem.cause == "the model's chat template refuses it: Only user and assistant roles are supported!"


def test_words_of_the_data_stay_out_of_what_a_template_raises():
    tokenizer = templates.tokenizer("{{ raise_exception('I hate ' + messages[0].content) }}")
    with pytest.raises(DataProblems) as found:
        list(samples_of([TWO], tokenizer))
    assert found.value.problems[0].cause == "the model's chat template refuses it (TemplateError)"


def test_a_template_that_cannot_be_followed_is_refused():
    with pytest.raises(DataProblems, match="writes earlier turns in another way before an answer"):
        list(samples_of([TWO], templates.tokenizer(templates.COUNTING)))


def test_without_a_template_there_is_a_clear_error():
    with pytest.raises(TokenizerUnusable, match=r"has no chat template.*chat_template\.jinja"):
        list(samples_of([TWO], templates.tokenizer(None)))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(TokenizerUnusable, match=r"tokenizer\.json") as found:
        load_tokenizer(tmp_path)
    assert str(tmp_path) not in str(found.value)
    with pytest.raises(TokenizerUnusable, match="is missing"):
        load_tokenizer(tmp_path / "none")


def test_the_demo_models_own_tokenizer(demo_model_folder: Path):
    tokenizer = load_tokenizer(demo_model_folder)
    (sample,) = samples(WITH_SYSTEM, tokenizer)
    assert learnt(sample, tokenizer) == [f"{said}<|im_end|>" for said in ANSWERS]


def test_many_conversations_keep_their_order():
    tokenizer = templates.tokenizer(templates.CHATML)
    many = [(Turn("user", "?"), Turn("assistant", str(number))) for number in range(1000)]
    told = [learnt(sample, tokenizer) for sample in samples_of(many, tokenizer)]
    assert told == [[f"{number}<|im_end|>"] for number in range(1000)]
