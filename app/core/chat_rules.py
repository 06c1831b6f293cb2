"""What a chat request may contain: one table of fields, types and ranges, checked before anything else happens.

JSON types are strict. A field that is not in the table is refused by name, as OpenAI does, so that a caller learns
of a typing error and nothing unknown ever reaches the engine. Sources: S3, table 9-1; OpenAI's chat API; API.md.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from app.core.chat_errors import refusal
from app.core.chat_fields import (
    BestOf,
    Biases,
    Choices,
    Label,
    LengthPenalty,
    MinP,
    Penalty,
    ReasoningEffort,
    RepetitionPenalty,
    Seed,
    Stop,
    Stops,
    Temperature,
    Tokens,
    TopK,
    TopP,
)
from app.core.chat_json import Mark
from app.core.chat_messages import AssistantMessage, Messages
from app.core.chat_size import require_modest
from app.core.chat_terms import PROFILES
from app.core.chat_tools import (
    MAX_SCHEMA_COUNT,
    MAX_TOOLS,
    MAX_UNROLLED,
    TOO_MUCH_UNROLLED,
    NamedTool,
    ResponseFormat,
    Strict,
    Tool,
    patterns_unrolled,
    too_large_count,
)
from app.core.errors import InvalidField


def _filled(name: str, note: str) -> Any:
    """A field that an endpoint's profile fills in."""
    return Field(None, description=f"{note} With profile maas {PROFILES['maas'][name]}.")


def _refused(why: str) -> Any:
    return Field(None, description=f"not supported: {why}")


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class Thinking(Strict):
    """Ark's word for reasoning_effort."""

    type: Literal["enabled", "disabled", "auto"]


class ChatRequest(Strict):
    """The body of POST /v1/chat/completions. Whatever is null counts as left out."""

    model: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The endpoint's ID, or its name where that is unique."
    )
    messages: Messages = Field(description="The conversation; text only.")
    stream: bool | None = Field(False, description="Whether the answer comes as server-sent events.")
    stream_options: StreamOptions | None = Field(
        None,
        description="With stream only. include_usage: one more event with the usage; continuous_usage_stats: usage in "
        "every event; include_obfuscation has no effect.",
    )
    max_tokens: Tokens | None = _filled(
        "max_tokens",
        "Of the answer, which together with the prompt has at most the endpoint's max_model_len. Left out: as many as "
        "that leaves, or the model's own limit.",
    )
    max_completion_tokens: Tokens | None = Field(None, description="The same by its newer name; give one of them.")
    temperature: Temperature | None = _filled("temperature", "0: greedy. Left out: the model's own, else 1.")
    top_p: TopP | None = _filled("top_p", "Left out: the model's own, else 1.")
    top_k: TopK | None = _filled("top_k", "-1: all tokens; not 0. Left out: the model's own, else -1.")
    min_p: MinP | None = Field(None, description="Left out: the model's own, else 0.")
    presence_penalty: Penalty | None = _filled("presence_penalty", "Left out: 0.")
    frequency_penalty: Penalty | None = _filled("frequency_penalty", "Left out: 0.")
    repetition_penalty: RepetitionPenalty | None = Field(None, description="Left out: the model's own, else 1.")
    stop: Stop | Stops | None = Field(None, description="Texts that end the answer and are not part of it.")
    n: Choices | None = Field(1, description="How many answers; more than 1 not with temperature 0 or top_k 1.")
    seed: Seed | None = Field(None, description="Makes sampling repeatable as far as the hardware lets it.")
    ignore_eos: bool | None = Field(False, description="Whether to go on after the model's end-of-text token.")
    use_beam_search: bool | None = Field(
        False, description="Needs n above 1, temperature 0, top_p 1 and top_k -1; then stop, penalties, min_p, "
        "logit_bias and response_format do not apply and are refused.",
    )  # fmt: skip
    best_of: BestOf | None = Field(None, description="At least n. Checked; how many answers come is up to n alone.")
    length_penalty: LengthPenalty | None = Field(
        1.0, description="Other than 1 needs use_beam_search, top_k -1 and best_of above 1."
    )
    logprobs: bool | None = Field(False, description="Whether to give the log-probability of each token.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="For how many tokens at each place; needs logprobs."
    )
    logit_bias: Biases | None = Field(None, description="Added to the logits of tokens, by token ID.")
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Functions that the model may call, where its family can."
    )
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(
        None, description="Left out: auto where there are tools."
    )
    parallel_tool_calls: bool | None = Field(True, description="Whether an answer may call several functions.")
    response_format: ResponseFormat | None = Field(
        None, description="json_object and json_schema only where the endpoint has features.structured_output."
    )
    reasoning_effort: ReasoningEffort | None = Field(
        None,
        description="How much a reasoning model thinks, as far as its chat template knows of it; none: not at all.",
    )
    thinking: Thinking | None = Field(
        None, description="disabled: as reasoning_effort none, where that is not given; enabled and auto: as left out."
    )
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = Field(
        None, description="Text is the only one."
    )
    verbosity: Literal["medium"] | None = Field(None, description="Without effect; so medium is the only one.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="Without effect.")
    store: bool | None = Field(False, description="Nothing is stored; so not true.")
    user: Label | None = Field(None, description="Without effect.")
    safety_identifier: Label | None = Field(None, description="Without effect.")
    prompt_cache_key: Label | None = Field(None, description="Without effect.")
    prompt_cache_retention: Label | None = Field(None, description="Without effect.")
    prompt_cache_options: Mark | None = Field(None, description="Without effect.")
    metadata: Annotated[dict[str, Label], Field(max_length=16)] | None = Field(None, description="Without effect.")

    # Refused, each with the reason; some clients send them as null, which asks for nothing.
    audio: None = _refused("models here give text only")
    chat_template: None = _refused("an endpoint uses its model's own template")
    chat_template_kwargs: None = _refused("to turn thinking off, use reasoning_effort: none")
    documents: None = _refused("write them into a message")
    function_call: None = _refused("use tool_choice")
    functions: None = _refused("use tools")
    moderation: None = _refused("there is none")
    prediction: None = _refused("there is no use for it")
    prompt_embeds: None = _refused("prompts are text, in messages")
    structured_outputs: None = _refused("use response_format")
    web_search_options: None = _refused("nothing is fetched for a caller")


class AddressedChatRequest(ChatRequest):
    """The same where the path names the endpoint: `model` may be left out or empty."""

    model: Annotated[str, Field(max_length=128)] = Field("", description="Left out, or the endpoint of the path.")


def check_chat(body: bytes, form: type[ChatRequest] = ChatRequest) -> ChatRequest:
    """The request in `body`, which has this form, as far as it can be checked before its endpoint is known.

    Raises BadRequest for what is not a JSON object, InvalidField that names the first wrong field, what came
    (numbers as they are, other values by their type only) and what is allowed.
    """
    require_modest(body)
    try:
        request = form.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error, form) from None
    if request.top_k == 0:
        raise InvalidField("top_k is 0; allowed is -1 (all tokens) or at least 1.", "top_k")
    if request.top_logprobs and not request.logprobs:
        raise InvalidField("top_logprobs needs logprobs to be true.", "top_logprobs")
    if request.stream_options and not request.stream:
        raise InvalidField("stream_options is only for requests with stream set to true.", "stream_options")
    if request.store:
        raise InvalidField("store is true; allowed is false, for nothing is stored.", "store")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidField("max_tokens and max_completion_tokens are the same; give one of them.", "max_tokens")
    _check_messages(request)
    _check_tools(request)
    _check_format(request)
    return request


def _check_messages(request: ChatRequest) -> None:
    for index, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and not message.says:
            raise InvalidField(
                f"messages[{index}].content is missing; only one with tool_calls, reasoning or refusal needs none.",
                f"messages[{index}].content",
            )


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    to_unroll = 0
    for index, tool in enumerate(request.tools or ()):
        bound = tool.function.strict or choice not in (None, "none", "auto")
        to_unroll += patterns_unrolled(tool.function.parameters or {}) if bound else 0
        if to_unroll > MAX_UNROLLED:
            raise InvalidField(f"tools[{index}].function.parameters: {TOO_MUCH_UNROLLED}.", "tools")
        if bound and (keyword := too_large_count(tool.function.parameters or {})):
            param = f"tools[{index}].function.parameters"
            raise InvalidField(
                f"{param}: {keyword} is at most {MAX_SCHEMA_COUNT} where the model has to keep to it, which strict and "
                "tool_choice ask for.",
                param,
            )
    if choice in (None, "none"):
        return
    if request.tools is None:
        raise InvalidField("tool_choice needs tools.", "tool_choice")
    if isinstance(choice, NamedTool) and all(tool.function.name != choice.function.name for tool in request.tools):
        raise InvalidField("tool_choice names a function that is not among the tools.", "tool_choice.function.name")


def _check_format(request: ChatRequest) -> None:
    wanted = request.response_format
    if wanted and (wanted.type == "json_schema") != (wanted.json_schema is not None):
        raise InvalidField(
            "response_format.json_schema goes with type json_schema, and that with it.", "response_format.json_schema"
        )
