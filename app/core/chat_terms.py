"""What an endpoint adds to the chat requests it gets, and what it lets them ask for."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from app.core.chat_fields import (
    MinP,
    Penalty,
    ReasoningEffort,
    RepetitionPenalty,
    Stop,
    Stops,
    Temperature,
    Tokens,
    TopK,
    TopP,
)

Profile = Literal["openai", "maas"]
PROFILES: dict[Profile, dict[str, Any]] = {
    "openai": {},
    "maas": {
        "max_tokens": 16,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    },
}
"""Values of fields that a request leaves out. openai: none of ours, so the model's own (its generation_config.json)
and then the engine's; maas: S3, table 9-1. What that table has besides is what the engine does anyway."""


class _Terms(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class RequestDefaults(_Terms):
    """Values of fields that a request leaves out: the profile's, and those given here before them."""

    profile: Profile = "openai"
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    stop: Stop | Stops | None = None
    reasoning_effort: ReasoningEffort | None = None
    """none: for a model whose chat template can think, but that was tuned on answers without thoughts."""

    @field_validator("top_k")
    @classmethod
    def _some_tokens(cls, top_k: int | None) -> int | None:
        if top_k == 0:
            raise ValueError("allowed is -1 (all tokens) or at least 1")
        return top_k

    def values(self) -> dict[str, Any]:
        """By field."""
        return PROFILES[self.profile] | self.model_dump(exclude={"profile"}, exclude_none=True)


class Features(_Terms):
    """What an endpoint's callers may ask for beyond text."""

    structured_output: bool = False
    """Whether response_format may be json_object or json_schema (S2: no)."""


class ChatTerms(BaseModel):
    """The same for routers, which are told in one piece."""

    model_config = ConfigDict(frozen=True)

    defaults: Mapping[str, Any] = {}
    structured_output: bool = False
    tools: bool = False
    """Whether functions may be called: the model's family is known to, and the engine to read what it says."""
