"""What a chat request may contain: one table of fields, types and ranges, checked before anything else happens.

JSON types are strict. A field that is not in the table is refused by name, as OpenAI does, so that a caller learns
of a typing error and nothing unknown ever reaches the engine. Sources: S3 table 9-1 for ranges; OpenAI's chat API.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import InvalidField
from app.core.field_errors import field_error

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256
MAX_PARTS = 1024
"""Of one message's content."""
MAX_BIASES = 1024


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(_Part):
    """A piece of a message's content; text is the only kind a text model takes."""

    type: Literal["text"]
    text: str


class Message(_Part):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]
    name: Annotated[str, Field(max_length=64)] | None = None


class StreamOptions(_Part):
    """Options of a streamed answer."""

    include_usage: bool | None = None


_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class ChatRequest(_Part):
    """The body of POST /v1/chat/completions."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 24)] | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: Annotated[dict[str, _Bias], Field(max_length=MAX_BIASES)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    ignore_eos: bool | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    # Not served; but Ark's SDK sends each of them as null, which asks for nothing.
    function_call: None = None
    parallel_tool_calls: None = None
    reasoning_effort: None = None
    repetition_penalty: None = None
    response_format: None = None
    service_tier: None = None
    thinking: None = None
    tool_choice: None = None
    tools: None = None


class AddressedChatRequest(ChatRequest):
    """The same where the path names the endpoint: `model` may be left out or empty."""

    model: Annotated[str, Field(max_length=128)] = ""


def check_chat(body: bytes, form: type[ChatRequest] = ChatRequest) -> ChatRequest:
    """The request in `body`, which has this form.

    Raises BadRequest for what is not a JSON object, InvalidField that names the first wrong field, what came
    (numbers as they are, other values by their type only) and what is allowed.
    """
    try:
        request = form.model_validate_json(body)
    except ValidationError as error:
        raise field_error(error) from None
    greedy = request.temperature == 0 or request.top_k == 1
    if (request.n or 1) > 1 and greedy:
        raise InvalidField(f"n is {request.n}, but with temperature 0 or top_k 1 all answers would be the same.", "n")
    if request.top_k == 0:
        raise InvalidField("top_k is 0; allowed is -1 (all tokens) or at least 1.", "top_k")
    if request.top_logprobs and not request.logprobs:
        raise InvalidField("top_logprobs needs logprobs to be true.", "top_logprobs")
    if request.stream_options and not request.stream:
        raise InvalidField("stream_options is only for requests with stream set to true.", "stream_options")
    return request
