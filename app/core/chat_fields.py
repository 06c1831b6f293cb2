"""The single values of a chat request: their types and ranges, once for requests and for endpoints' defaults.

Sources: S3, table 9-1; OpenAI's chat API; API.md.
"""

from typing import Annotated, Literal

from pydantic import Field

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256
MAX_BIASES = 1024
MAX_TOKENS = 1 << 24

Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=-1, le=MAX_TOKENS)]
"""-1: all tokens. 0 is refused by a rule of its own, so that the error says what to write instead."""
MinP = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)]
LengthPenalty = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Choices = Annotated[int, Field(ge=1, le=10)]
BestOf = Annotated[int, Field(ge=1, le=20)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Biases = Annotated[dict[TokenId, Bias], Field(max_length=MAX_BIASES)]
Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Label = Annotated[str, Field(max_length=512)]
"""Words of the caller's own that nothing depends on."""
