"""What callers hear of a request that vLLM refuses. Its own words may repeat a prompt or a schema.

Chat templates give reasons of their own, and compilers of grammars quote what they do not understand. So only what
speaks of lengths and of settings that are numbers is passed on.
"""

from app.core.errors import BadRequest, InternalError, PlatformError, TooManyRequests, Unavailable

_LENGTHS = ("input_text", "input_tokens")
"""vLLM's names for what callers know as messages."""
_NUMBERS = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("max_tokens", "max_completion_tokens", "min_tokens", "thinking_token_budget"),
    *("logprobs", "top_logprobs", "prompt_logprobs"),
)
_LATER: dict[int, type[PlatformError]] = {429: TooManyRequests, 503: Unavailable}


def refusal(status: int, message: str, param: str | None) -> PlatformError:
    """The error for what vLLM says with this HTTP status of this field."""
    if status == 500:
        return InternalError("The engine failed.")
    if status in _LATER:
        return _LATER[status]("The engine cannot take this request now; try again later.")
    said = message.partition(" (parameter=")[0]
    if param in _LENGTHS:
        return BadRequest(said, "messages", "context_length_exceeded")
    field = param or said.partition(" ")[0]
    if field in _NUMBERS:
        return BadRequest(said, field)
    return BadRequest(
        f"The engine cannot answer this request{f' for its {param}' if param else ''}. Check that the model's chat "
        "template takes such messages and tools, and that schemas use no feature beyond JSON Schema's common ones.",
        param,
    )


def invalid(kind: str, message: str, field: str | None) -> BadRequest:
    """The error for what vLLM's own check of a body finds, of pydantic's error type `kind`."""
    free = kind in ("value_error", "assertion_error")
    return BadRequest("The engine does not take this request in this form." if free else message, field)
