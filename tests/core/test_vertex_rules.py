"""From a Vertex call to chats and back, without any router."""

import json
from typing import Any

import pytest

from app.core.chat_rules import AddressedChatRequest, check_chat
from app.core.errors import InvalidField, PlatformError, Unavailable
from app.core.vertex_rules import has_instances, instances, predictions, streaming, token_counts

CHAT: dict[str, Any] = {"@requestFormat": "chatCompletions", "messages": [{"role": "user", "content": "hé"}]}
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "Paris"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def call(*asked: Any, **fields: Any) -> bytes:
    return json.dumps({"instances": list(asked), **fields}).encode()


def chats(*asked: Any, **fields: Any) -> list[Any]:
    return [json.loads(instance.chat) for instance in instances(call(*asked, **fields))]


@pytest.mark.parametrize("field", ["prompt", "text"])
def test_a_prompt_becomes_one_message_of_a_user(field: str) -> None:
    asked = {field: "hé 你", "temperature": 0, "top_p": 1, "max_tokens": 154, "ignore_eos": True, "raw_response": True}
    assert chats(asked) == [
        {
            "messages": [{"role": "user", "content": "hé 你"}],
            "temperature": 0, "top_p": 1, "max_tokens": 154, "ignore_eos": True,
        }
    ]  # fmt: skip


def test_parameters_are_for_all_and_an_instances_own_fields_win() -> None:
    made = chats({"prompt": "a"}, {"prompt": "b", "top_k": 5}, parameters={"top_k": 1, "max_tokens": 2})
    assert [(one["top_k"], one["max_tokens"]) for one in made] == [(1, 2), (5, 2)]
    assert chats({"prompt": "a", "top_k": None}, parameters={"top_k": 1})[0]["top_k"] == 1
    assert chats({"prompt": "a"}, parameters=None) == [{"messages": [{"role": "user", "content": "a"}]}]


def test_messages_stay_as_they_are() -> None:
    assert chats(CHAT | {"max_tokens": 3}) == [{"messages": CHAT["messages"], "max_tokens": 3}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b'{"instances": ', None),
        (b"[]", None),
        (b'{"instances": [{"prompt": "\\ud800"}]}', None),
        (b"{}", "instances"),
        (call(), "instances"),
        (call(*[{"prompt": "a"}] * 33), "instances"),
        (call("hello"), "instances[0]"),
        (call({"prompt": "a"}, 7), "instances[1]"),
        (call({"prompt": "a"}, other=1), "other"),
        (call({"prompt": "a"}, parameters=[1]), "parameters"),
        (call({"prompt": "a"}, parameters={"text": "b"}), "parameters.text"),
        (call({"prompt": "a"}, parameters={"messages": []}), "parameters.messages"),
        (call({"prompt": "a"}, parameters={"@requestFormat": "chatCompletions"}), "parameters.@requestFormat"),
        (call({}), "instances[0].prompt"),
        (call({"prompt": None}), "instances[0].prompt"),
        (call({"prompt": "a", "text": "a"}), "instances[0].prompt"),
        (call({"prompt": "a"}, {"prompt": 5}), "instances[1].prompt"),
        (call({"text": ["a"]}), "instances[0].text"),
        (call({"prompt": "a", "messages": CHAT["messages"]}), "instances[0].messages"),
        (call({"prompt": "a", "n": 2}), "instances[0].n"),
        (call({"prompt": "a", "logprobs": True}), "instances[0].logprobs"),
        (call({"prompt": "a"}, parameters={"logprobs": True}), "parameters.logprobs"),
        (call({"prompt": "a", "raw_response": 1}), "instances[0].raw_response"),
        (call({"prompt": "a", "raw_response": False}), "instances[0].raw_response"),
        (call(CHAT | {"@requestFormat": "textGeneration"}), "instances[0].@requestFormat"),
    ],
)
def test_what_is_no_call_is_refused_by_field(body: bytes, param: str | None) -> None:
    with pytest.raises(PlatformError) as refused:
        list(instances(body))
    assert (refused.value.status, refused.value.param) == (400, param)
    assert not param or param.rpartition(".")[2] in refused.value.message


@pytest.mark.parametrize(
    ("asked", "parameters", "param"),
    [
        ({"prompt": "a", "temperature": 3}, {}, "instances[0].temperature"),
        ({"prompt": "a"}, {"temperature": 3}, "parameters.temperature"),
        ({"prompt": "a", "temperature": 3}, {"temperature": 1}, "instances[0].temperature"),
        ({"prompt": "a", "stop": ["a", ""]}, {}, "instances[0].stop[1]"),
        ({"prompt": "a", "colour": 1}, {}, "instances[0].colour"),
        ({"prompt": "a", "colour": None}, {}, "instances[0].colour"),
        ({"prompt": "a", "temperature": None}, {"temperature": 3}, "parameters.temperature"),
        ({"text": "a"}, {"logit_bias": {"1": 200}}, "parameters.logit_bias.1"),
        (CHAT | {"messages": [{"role": "x", "content": "a"}]}, {}, "instances[0].messages[0].role"),
        ({"@requestFormat": "chatCompletions"}, {}, "instances[0].messages"),
        (CHAT | {"prompt": "a"}, {}, "instances[0].prompt"),
    ],
)
def test_what_is_wrong_with_a_chat_is_told_by_the_names_of_the_call(asked: Any, parameters: Any, param: str) -> None:
    (instance,) = instances(call(asked, parameters=parameters))
    with pytest.raises(InvalidField) as refused, instance.named():
        check_chat(instance.chat, AddressedChatRequest)
    assert refused.value.message.startswith("instances[0]: ")
    assert refused.value.param == param or (param.endswith("messages") and "messages" in str(refused.value.param))


def test_other_errors_keep_all_that_they_say() -> None:
    _, second = instances(call({"prompt": "a"}, {"text": "b"}))
    told = Unavailable("No unit.", retry_after_s=7)
    told.status, told.type = 503, "odd_error"
    with pytest.raises(Unavailable) as raised, second.named():
        raise told
    error = raised.value
    assert (error.message, error.param, error.retry_after_s) == ("instances[1]: No unit.", "instances[1]", 7)
    assert (error.type, error.body()["error"]["code"]) == ("odd_error", "unavailable")  # type: ignore[index]
    with pytest.raises(InvalidField) as wrong, second.named():
        raise InvalidField("Too long.", "messages")  # as units say
    assert wrong.value.param == "instances[1].text"


def test_predictions_are_texts_or_whole_answers() -> None:
    silent = {"choices": [{"message": {"role": "assistant", "content": None}}]}
    prompts = list(instances(call({"prompt": "a"}, {"text": "b"})))
    assert predictions(prompts, [ANSWER, silent]) == ["Paris", ""]
    assert predictions(prompts[:1], [ANSWER]) == ["Paris"]
    mixed = list(instances(call({"prompt": "a"}, CHAT)))
    assert predictions(mixed, [ANSWER, ANSWER]) == ["Paris", ANSWER]
    assert predictions(mixed[1:], [ANSWER]) == ANSWER
    counts = token_counts([ANSWER, ANSWER, silent])["tokenMetadata"]
    assert counts == {"inputTokenCount": {"totalTokens": 6}, "outputTokenCount": {"totalTokens": 4}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"instances": 5}', True), (b'{"instances": ', False), (b"[1]", False), (b'{"a": "instances"}', False)],
)
def test_which_body_has_instances(body: bytes, expected: bool) -> None:
    assert has_instances(body) is expected


@pytest.mark.parametrize("stream", ["", ', "stream": null', ', "stream": true'])
def test_what_is_to_be_streamed_need_not_say_so(stream: str) -> None:
    made = check_chat(
        streaming(f' {{"messages": [{{"role": "user", "content": "}}"}}]{stream}}} \n'.encode()), AddressedChatRequest
    )
    assert made.stream is True


def test_what_is_not_to_be_streamed_is_refused() -> None:
    with pytest.raises(InvalidField) as refused:
        streaming(b'{"stream": false}')
    assert refused.value.param == "stream"
    for broken in (b"", b"{", b"[]", b"{}", b'{"stream": 5}'):
        assert streaming(broken) == broken
