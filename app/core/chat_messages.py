"""The turns of a conversation, by role; text is the only content."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.core.chat_json import Echo, Mark
from app.core.chat_tools import Strict

MAX_MESSAGES = 4096
MAX_PARTS = 1024
"""Of one message's content."""
MAX_TOOL_CALLS = 128
OTHER_PARTS = (
    "audio", "audio_url", "file", "image", "image_embeds", "image_url", "input_audio", "input_file", "input_image",
    "prompt_embeds", "video", "video_url",
)  # fmt: skip
"""Content that clients know how to send and text models cannot take. Nothing is ever fetched on a caller's behalf."""


class TextPart(Strict):
    """A piece of a message's content; where it is to be cached up to has no effect."""

    type: Literal["text"]
    text: str
    cache_control: Mark | None = None
    prompt_cache_breakpoint: Mark | None = None


Content = str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
_Name = Annotated[str, Field(max_length=64)]
_CallId = Annotated[str, Field(min_length=1, max_length=256)]


class CalledFunction(Strict):
    """The function's name and its arguments, as JSON in a string; what a client has made of that has no effect."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str
    parsed_arguments: Echo = None


class ToolCall(Strict):
    """A call that the model made in an earlier turn."""

    id: _CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int, Field(ge=0)] | None = None
    """Left over from a streamed answer that a client has put together."""


class SpokenMessage(Strict):
    """What the application or its user says."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: _Name | None = None


class AssistantMessage(Strict):
    """What the model said, as an earlier answer had it; those without a type are empty in every answer of ours.

    `parsed`: what a client has made of the content; without effect.
    """

    role: Literal["assistant"]
    content: Content | None = None
    name: _Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    parsed: Echo = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    encrypted_content: None = None

    @property
    def says(self) -> bool:
        """Whether there is anything in it."""
        return self.content is not None or bool(
            self.tool_calls or self.reasoning or self.reasoning_content or self.refusal
        )


class ToolMessage(Strict):
    """What a function returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: _CallId
    name: _Name | None = None


Message = Annotated[SpokenMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
