"""What Vertex's :predict asks for (S4): instances and parameters, of which each instance becomes one chat.

This is only a translation: each chat is then understood, checked and answered like any other, and what is wrong with
one is told in the caller's own words. `@requestFormat` is what Model Garden's own containers take.
"""

import copy
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from app.core.chat_size import require_modest
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
    filled: frozenset[str]
    """Fields that it has from the parameters."""
    prompt: str
    """The field that holds the prompt; empty: it has messages."""
    chat: bytes
    """The body of the chat that it becomes."""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of its chat are raised by the names of the call."""
        with _named(self.index, self.filled, self.prompt):
            yield


def has_instances(body: bytes) -> bool:
    """Whether a body of :rawPredict is one of :predict; else it is a chat's. Raises BadRequest for too many values."""
    require_modest(body)
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
    require_modest(body)
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
    filled = {name: value for name, value in parameters.items() if own.get(name) is None}
    chat = own | filled
    with _named(index, filled):
        wanted = chat.pop(FORMAT, None)
        if wanted not in (None, CHAT_FORMAT):
            raise InvalidField(f"{FORMAT} is for messages, and then {CHAT_FORMAT}; a prompt needs none.", FORMAT)
        prompt = "" if wanted else _take_prompt(chat)
    return Instance(index, frozenset(filled), prompt, to_json(chat))


def _take_prompt(chat: dict[str, Any]) -> str:
    """Put the prompt of what is to be a chat into messages; returns the name of its field."""
    with_messages = f'messages with "{FORMAT}": "{CHAT_FORMAT}"'
    given = [name for name in PROMPTS if chat.get(name) is not None]
    if len(given) != 1:
        came = "both" if given else "neither"
        raise InvalidField(f"There is {came} of prompt and text; give one of them, or {with_messages}.", PROMPTS[0])
    (name,) = given
    if not isinstance(chat[name], str):
        raise InvalidField(f"{name} must be a string.", name)
    if chat.get(RAW) is not None and chat[RAW] is not True:
        raise InvalidField(f"{RAW} can only be true: no answer repeats the prompt.", RAW)
    if field := next((field for field in CHAT_ONLY if chat.get(field) is not None), None):
        raise InvalidField(
            f"{field} does not go with a prompt, which is answered by a text; give {with_messages}.", field
        )
    content = chat[name]
    for field in (*PROMPTS, RAW):
        chat.pop(field, None)
    chat["messages"] = [{"role": "user", "content": content}]
    return name


@contextmanager
def _named(index: int, filled: Container[str], prompt: str = "") -> Iterator[None]:
    """Tells errors of an instance by the names of the call."""
    try:
        yield
    except PlatformError as error:
        param = error.param or ""
        field = re.split(r"[.\[]", param)[0]
        if prompt and field == "messages":
            param = field = prompt
        where = f"instances[{index}]"
        told = copy.copy(error)
        told.args = (
            f"{where}: {error.message}",
            f"parameters.{param}" if field in filled else f"{where}.{param}" if param else where,
            error.args[2],
        )
        raise told from None
