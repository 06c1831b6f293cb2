"""What Vertex's :predict asks for (S4): instances and parameters, of which each instance becomes one chat.

This is only a translation: each chat is then understood, checked and answered like any other, and what is wrong with
one is told in the caller's own words. `@requestFormat` is what Model Garden's own containers take.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from app.core.errors import InvalidField, PlatformError
from app.core.field_errors import field_error

MAX_INSTANCES = 32
PROMPTS = ("prompt", "text")
RAW = "raw_response"
"""Model Garden's wish for an answer that does not repeat the prompt; none of ours does."""
FORMAT = "@requestFormat"
CHAT_FORMAT = "chatCompletions"
CHAT_ONLY = (
    "messages", "n", "logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
)  # fmt: skip
"""What a prompt cannot have: of its answer only the text is told."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class PredictRequest(_Part):
    """Body of :predict."""

    instances: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_INSTANCES)]
    parameters: dict[str, Any] | None = None
    """For all instances; what an instance says itself wins."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a call."""

    index: int
    own: frozenset[str]
    """The fields that it has itself; the others come from the parameters."""
    prompt: str
    """The field that holds the prompt; empty: it has messages."""
    chat: bytes
    """The body of the chat that it becomes."""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of its chat are raised by the names of the call."""
        try:
            yield
        except PlatformError as error:
            told = copy.copy(error)
            told.args = (f"instances[{self.index}]: {error.message}", self._param(error.param), error.args[2])
            raise told from None

    def _param(self, param: str | None) -> str:
        field = (param or "").partition("[")[0].partition(".")[0]
        if self.prompt and field == "messages":
            param = field = self.prompt
        return f"parameters.{param}" if field and field not in self.own else _where(self.index, param)


def has_instances(body: bytes) -> bool:
    """Whether a body of :rawPredict is one of :predict; else it is a chat's."""
    try:
        parsed = from_json(body)
    except ValueError:
        return False
    return isinstance(parsed, dict) and "instances" in parsed


def instances(body: bytes, at_most: int = MAX_INSTANCES) -> Iterator[Instance]:
    """What `body` asks for, one after another, for each may take as much memory as all parameters.

    Raises BadRequest for what is not a JSON object, InvalidField for a field that is wrong; what is wrong with the
    fields of a chat is left to whoever takes it.
    """
    try:
        request = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise field_error(error) from None
    if len(request.instances) > at_most:
        raise InvalidField(f"instances has {len(request.instances)}; allowed is {at_most} here.", "instances")
    parameters = request.parameters or {}
    if field := next((name for name in (*PROMPTS, "messages", FORMAT) if name in parameters), None):
        raise InvalidField(f"parameters.{field} belongs into the instances.", f"parameters.{field}", "unknown_field")
    return (_instance(index, own, parameters) for index, own in enumerate(request.instances))


def streaming(chat: bytes) -> bytes:
    """The body of a chat that is to be streamed, which it need not say. Raises InvalidField where it says no."""
    try:
        parsed = from_json(chat)
    except ValueError:
        return chat  # whoever takes it refuses it
    if not isinstance(parsed, dict) or not parsed:
        return chat
    if parsed.get("stream") is False:
        raise InvalidField("stream is false; :streamRawPredict streams, :rawPredict need not.", "stream")
    if parsed.get("stream") is not None:
        return chat
    return chat.rstrip()[:-1] + b',"stream":true}'  # where a name comes twice the last one holds


def predictions(asked: Sequence[Instance], answers: Sequence[Mapping[str, Any]]) -> Any:
    """The `predictions` of a call: of a prompt the text, of messages the whole answer.

    A list; but of one instance with messages its answer itself, as Model Garden has it.
    """
    made = [
        answer["choices"][0]["message"].get("content") or "" if instance.prompt else answer
        for instance, answer in zip(asked, answers, strict=True)
    ]
    return made if len(made) > 1 or asked[0].prompt else made[0]


def token_counts(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The `metadata` of a call: what all its answers took together."""
    used = [answer.get("usage") or {} for answer in answers]
    total = {name: sum(one.get(name, 0) for one in used) for name in ("prompt_tokens", "completion_tokens")}
    return {
        "tokenMetadata": {
            "inputTokenCount": {"totalTokens": total["prompt_tokens"]},
            "outputTokenCount": {"totalTokens": total["completion_tokens"]},
        }
    }


def _instance(index: int, own: dict[str, Any], parameters: dict[str, Any]) -> Instance:
    chat = {**parameters, **own}
    wanted = chat.pop(FORMAT, None)
    if wanted not in (None, CHAT_FORMAT):
        raise InvalidField(
            f"instances[{index}].{FORMAT} is for messages and then {CHAT_FORMAT}; a prompt needs none.",
            _where(index, FORMAT),
        )
    prompt = "" if wanted else _take_prompt(index, chat)
    return Instance(index, frozenset(own), prompt, to_json(chat))


def _take_prompt(index: int, chat: dict[str, Any]) -> str:
    """Put the prompt of what is to be a chat into messages; returns the name of its field."""
    named = [name for name in PROMPTS if chat.get(name) is not None]
    if len(named) != 1:
        raise InvalidField(
            f"instances[{index}] has {'both' if named else 'neither'} of prompt and text; give one of them, or "
            f'messages with "{FORMAT}": "{CHAT_FORMAT}".',
            _where(index, "prompt"),
        )
    if not isinstance(chat[named[0]], str):
        raise InvalidField(f"instances[{index}].{named[0]} must be a string.", _where(index, named[0]))
    if chat.get(RAW) not in (None, True):
        raise InvalidField(f"instances[{index}].{RAW} may be true: no answer repeats the prompt.", _where(index, RAW))
    if field := next((name for name in CHAT_ONLY if chat.get(name) is not None), None):
        raise InvalidField(
            f"instances[{index}].{field} does not go with a prompt, of whose answer only the text is told; give "
            f'messages with "{FORMAT}": "{CHAT_FORMAT}".',
            _where(index, field),
        )
    messages = [{"role": "user", "content": chat[named[0]]}]
    for name in (*PROMPTS, RAW):
        chat.pop(name, None)
    chat["messages"] = messages
    return named[0]


def _where(index: int, param: str | None) -> str:
    return f"instances[{index}].{param}" if param else f"instances[{index}]"
