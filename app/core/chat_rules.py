"""What a chat request may contain: one table of fields, types and ranges, checked before anything else happens.

JSON types are strict. A field that is not in the table is refused by name, as OpenAI does, so that a caller learns
of a typing error and nothing unknown ever reaches the engine. Sources: S3, table 9-1; OpenAI's chat API; API.md.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import from_json, to_json

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
from app.core.chat_messages import AssistantMessage, Messages
from app.core.chat_terms import ChatTerms
from app.core.chat_tools import MAX_TOOLS, NamedTool, ResponseFormat, Strict, Tool
from app.core.errors import InvalidField


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


def _refused(why: str) -> Any:
    return Field(None, description=f"not supported: {why}")


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
    max_tokens: Tokens | None = Field(
        None,
        description="Tokens of the answer; left out: as many as the endpoint's max_model_len leaves. Together with the "
        "prompt at most max_model_len.",
    )
    max_completion_tokens: Tokens | None = Field(None, description="The same by its newer name; give one of them.")
    temperature: Temperature | None = Field(None, description="0: greedy. Left out: the model's own, else 1.")
    top_p: TopP | None = Field(None, description="Left out: the model's own, else 1.")
    top_k: TopK | None = Field(None, description="-1: all tokens; not 0. Left out: the model's own, else -1.")
    min_p: MinP | None = Field(None, description="Left out: the model's own, else 0.")
    presence_penalty: Penalty | None = Field(None, description="Left out: 0.")
    frequency_penalty: Penalty | None = Field(None, description="Left out: 0.")
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
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = Field(
        None, description="Text is the only one."
    )
    verbosity: Literal["medium"] | None = Field(None, description="Without effect; so medium is the only one.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="Without effect.")
    store: bool | None = Field(False, description="Nothing is stored; so not true.")
    user: Label | None = Field(None, description="Without effect.")
    safety_identifier: Label | None = Field(None, description="Without effect.")
    prompt_cache_key: Label | None = Field(None, description="Without effect.")
    metadata: Annotated[dict[str, Label], Field(max_length=16)] | None = Field(None, description="Without effect.")

    # Refused, each with the reason; some clients send them as null, which asks for nothing.
    audio: None = _refused("models here give text only")
    chat_template: None = _refused("an endpoint uses its model's own template")
    chat_template_kwargs: None = _refused("an endpoint uses its model's own template")
    documents: None = _refused("write them into a message")
    function_call: None = _refused("use tool_choice")
    functions: None = _refused("use tools")
    moderation: None = _refused("there is none")
    prediction: None = _refused("there is no use for it")
    prompt_embeds: None = _refused("prompts are text, in messages")
    structured_outputs: None = _refused("use response_format")
    thinking: None = _refused("use reasoning_effort, where 'none' turns thinking off")
    web_search_options: None = _refused("nothing is fetched for a caller")


class AddressedChatRequest(ChatRequest):
    """The same where the path names the endpoint: `model` may be left out or empty."""

    model: Annotated[str, Field(max_length=128)] = Field("", description="Left out, or the endpoint of the path.")


def check_chat(body: bytes, form: type[ChatRequest] = ChatRequest) -> ChatRequest:
    """The request in `body`, which has this form, as far as it can be checked before its endpoint is known.

    Raises BadRequest for what is not a JSON object, InvalidField that names the first wrong field, what came
    (numbers as they are, other values by their type only) and what is allowed.
    """
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


def settle(request: ChatRequest, body: bytes, terms: ChatTerms) -> bytes:
    """The body as the endpoint's units are to get it: with its defaults, without what the engine does not take.

    The very same bytes where there is nothing to change. Raises InvalidField for what breaks a rule over several
    fields, after the defaults, or asks for what the endpoint does not offer.
    """
    added = {name: value for name, value in terms.defaults.items() if getattr(request, name) is None}
    if request.max_completion_tokens is not None:
        added.pop("max_tokens", None)
    _check_sampling(request.model_copy(update=added) if added else request)
    _check_offer(request, terms)
    dropped = [name for name in request.model_fields_set & _NOT_FOR_THE_ENGINE if _is_dropped(name, request)]
    if not added and not dropped:
        return body
    fields = from_json(body)
    for name in dropped:
        del fields[name]
    return to_json(fields | added)


_NO_NULL = frozenset({"ignore_eos", "use_beam_search", "length_penalty", "tool_choice"})
"""The engine takes these left out, but not null."""
_NOT_FOR_THE_ENGINE = _NO_NULL | {"best_of"}


def _is_dropped(name: str, request: ChatRequest) -> bool:
    return name not in _NO_NULL or getattr(request, name) is None


def _check_messages(request: ChatRequest) -> None:
    for index, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.content is None and not message.tool_calls:
            raise InvalidField(
                f"messages[{index}].content is missing; only a message with tool_calls needs none.",
                f"messages[{index}].content",
            )


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
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


def _check_sampling(asked: ChatRequest) -> None:
    """The rules of S3, table 9-1, over several fields; the error names the one that is not temperature."""
    n = asked.n or 1
    if asked.use_beam_search:
        _check_beams(asked, n)
    elif n > 1 and (asked.temperature == 0 or asked.top_k == 1):
        raise InvalidField(f"n is {n}, but with temperature 0 or top_k 1 all answers would be the same.", "n")
    if asked.best_of is not None and asked.best_of < n:
        raise InvalidField(f"best_of is {asked.best_of}; allowed is at least n, which is {n}.", "best_of")
    if asked.length_penalty in (None, 1):
        return
    if not asked.use_beam_search or asked.top_k not in (None, -1) or (asked.best_of or 1) < 2:
        raise InvalidField(
            f"length_penalty is {asked.length_penalty:g}; other than 1 needs use_beam_search true, top_k -1 and "
            "best_of above 1.",
            "length_penalty",
        )


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stop": (None, []),
    "min_p": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "logit_bias": (None, {}),
}
"""What beam search leaves out of account, and the values that ask for nothing."""


def _check_beams(asked: ChatRequest, n: int) -> None:
    if n == 1:
        raise InvalidField("n is 1; use_beam_search needs n from 2 to 10.", "n")
    if asked.top_p not in (None, 1):
        raise InvalidField(f"top_p is {asked.top_p:g}; use_beam_search needs 1.", "top_p")
    if asked.top_k not in (None, -1):
        raise InvalidField(f"top_k is {asked.top_k}; use_beam_search needs -1.", "top_k")
    if asked.temperature != 0:
        came = "is not given" if asked.temperature is None else f"is {asked.temperature:g}"
        raise InvalidField(f"use_beam_search needs temperature 0, and temperature {came}.", "use_beam_search")
    for name, neutral in _NEUTRAL.items():
        if getattr(asked, name) not in neutral:
            raise InvalidField(f"{name} has no effect with use_beam_search; leave it out.", name)
    if asked.response_format and asked.response_format.type != "text":
        raise InvalidField("response_format has no effect with use_beam_search; leave it out.", "response_format.type")


def _check_offer(request: ChatRequest, terms: ChatTerms) -> None:
    wanted = request.response_format
    if wanted and wanted.type != "text" and not terms.structured_output:
        raise InvalidField(
            f"response_format.type {wanted.type} is not enabled for this endpoint; allowed is text. Whoever manages "
            "the endpoint can set features.structured_output to true.",
            "response_format.type",
            "feature_disabled",
        )
    if request.tools and request.tool_choice != "none" and not terms.tools:
        raise InvalidField(
            "tools are not available: the endpoint's model belongs to a family without tool calls. Leave them out, "
            "or set tool_choice to none.",
            "tools",
            "feature_disabled",
        )
