"""A chat request and its endpoint: the endpoint's defaults, the rules that hold after them, and what it offers."""

from typing import Any

from pydantic_core import from_json, to_json

from app.core.chat_history import is_for_the_engine, told
from app.core.chat_rules import ChatRequest
from app.core.chat_terms import ChatTerms
from app.core.errors import InvalidField

_NO_NULL = frozenset({"ignore_eos", "use_beam_search", "length_penalty", "tool_choice"})
"""The engine takes these left out, but not null."""
_NOT_FOR_THE_ENGINE = _NO_NULL | {"best_of", "thinking"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stop": (None, []),
    "min_p": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "logit_bias": (None, {}),
}
"""What beam search leaves out of account, and the values that ask for nothing."""


def settle(request: ChatRequest, body: bytes, terms: ChatTerms) -> bytes:
    """The body as the endpoint's units are to get it: with its defaults, without what the engine does not take.

    The very same bytes where there is nothing to change. Raises InvalidField for what breaks a rule over several
    fields, after the defaults, or asks for what the endpoint does not offer.
    """
    added = {name: value for name, value in terms.defaults.items() if getattr(request, name) is None}
    if request.max_completion_tokens is not None:
        added.pop("max_tokens", None)
    if request.thinking and request.thinking.type == "disabled" and request.reasoning_effort is None:
        added["reasoning_effort"] = "none"
    _check_sampling(request.model_copy(update=added) if added else request)
    _check_offer(request, terms)
    dropped = [name for name in request.model_fields_set & _NOT_FOR_THE_ENGINE if _is_dropped(name, request)]
    retold = [index for index, message in enumerate(request.messages) if not is_for_the_engine(message)]
    if not added and not dropped and not retold:
        return body
    fields = from_json(body)
    for index in retold:
        fields["messages"][index] = told(fields["messages"][index])
    for name in dropped:
        del fields[name]
    return to_json(fields | added)


def _is_dropped(name: str, request: ChatRequest) -> bool:
    return name not in _NO_NULL or getattr(request, name) is None


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
