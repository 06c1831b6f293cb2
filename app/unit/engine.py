"""What a unit needs of an engine. Two implementations: vllm_engine, and simulated_engine for tests."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from app.core.errors import PlatformError
from app.core.reports import EngineStats
from app.core.usage import Tokens


class Head(BaseModel):
    """The first part of an answer: its HTTP status and content type, and what the engine has read for it."""

    model_config = ConfigDict(frozen=True)

    status: int
    content_type: str
    prompt_tokens: int = 0
    cached_tokens: int = 0


Tell = Callable[[Tokens], None]
"""Hears what an answer has taken."""


class Simulation(BaseModel):
    """How a simulated engine behaves; times in seconds, counts in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_s: float = 0.0
    first_token_s: float = 0.01
    between_tokens_s: float = 0.005
    fail_start: str | None = None
    """The engine refuses to start, for this reason."""
    fail_start_while: str | None = None
    """Only while there is a file of this name."""
    die_after_tokens: int | None = None
    """The engine process kills itself once it has made this many tokens in all."""
    stall_after_tokens: int | None = None
    """Every answer stops without an end after this many tokens."""
    word: str = "word "


class EngineSettings(BaseModel):
    """What an engine is told of its limits; nothing is left to a default by now."""

    model_config = ConfigDict(frozen=True)

    max_model_len: int
    max_num_seqs: int
    prefix_caching: bool
    enforce_eager: bool
    kv_cache_bytes: int | None
    threads: int | None
    cache_salt: str = ""
    """Prefixes that are cached under one salt are never used under another; empty: without any."""
    machines: int = 1
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    """Of the model's family, by vLLM's names."""

    @property
    def ranks(self) -> int:
        """How many workers compute together, each with a card of its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def executor(self) -> Literal["mp", "ray"] | None:
        """Which of vLLM's executors runs the workers: None leaves a lone one inside the engine core."""
        if self.ranks == 1:
            return None
        return "ray" if self.machines > 1 else "mp"


class EngineLaunch(EngineSettings):
    """Everything an engine process is told at its start."""

    kind: Literal["vllm", "simulated"] = "vllm"
    endpoint_id: str
    model_dir: str
    compiled_dir: str = ""
    """Where what is compiled for the model is kept for the next start; empty: wherever the engine likes."""
    log_file: str
    environment: dict[str, str] = {}
    """Variables of the unit that the engine must see, such as the GPUs Ray gave it."""
    simulation: Simulation = Simulation()
    placement_group: str | None = None
    """The ID of Ray's placement group, where the unit spans several machines."""

    @property
    def warming_file(self) -> Path:
        """There once the engine has its weights and compiles or takes its first steps: it cannot say so by itself then,
        for its process waits for its core. Whoever starts the engine removes it."""
        return Path(f"{self.log_file}.warming")


class EngineDied(PlatformError):
    """The engine can serve nothing any more; its unit has to be replaced."""

    status, type, code = 503, "unavailable_error", "unit_lost"


class Engine(Protocol):
    """A running engine. One coroutine per answer; all run in the engine process's event loop."""

    def chat(self, body: bytes, request_id: str, tell: Tell) -> AsyncGenerator[Head | bytes, None]:
        """The answer to an OpenAI chat request: a Head, then body bytes as they come.

        Once it is over, also when it was aborted or failed, `tell` hears its exact tokens, before the generator ends;
        it hears nothing of a request that the engine never took up. Closing the generator or cancelling its task
        aborts the work. Raises EngineDied when the engine is gone, PlatformError when the request cannot be
        answered; both also after the first bytes.
        """
        ...

    async def check_health(self) -> None:
        """Return while the engine can serve; raises EngineDied otherwise."""
        ...

    async def stats(self) -> EngineStats:
        """What it has done and how it is now. Asked a few times a minute; answers within seconds, and never raises."""
        ...

    def close(self) -> None:
        """Free everything; the process ends soon after."""
        ...
