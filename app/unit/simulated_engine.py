"""An engine without a model, for tests: its timing and its faults are settings. Never a default."""

import asyncio
import json
import os
import signal
from collections import OrderedDict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from app.core.errors import EngineStartError
from app.core.reports import EngineStats
from app.core.usage import Tokens
from app.unit.engine import EngineLaunch, Head, Simulation, Tell
from app.unit.engine_tally import EngineTally

PROMPTS_KEPT = 1024
"""In what it takes for a prefix cache."""


class SimulatedEngine:
    """Answers every chat with the same word, as often as max_tokens says.

    Each word of the messages is a token of the prompt, and one more begins it. Of a prompt that was read before all but
    the last token is cached.
    """

    def __init__(self, launch: EngineLaunch):
        self._sim = launch.simulation
        self._endpoint_id = launch.endpoint_id
        self._max_num_seqs = launch.max_num_seqs
        self._tokens_made = 0
        self._under_way = 0
        self._tally = EngineTally()
        self._prompts: OrderedDict[int, None] = OrderedDict()
        """Hashes of those read of late, the newest last; empty without prefix caching."""
        self._prompts_kept = PROMPTS_KEPT if launch.prefix_caching else 0

    @classmethod
    async def start(cls, launch: EngineLaunch) -> "SimulatedEngine":
        """Wait as long as told, then serve or fail as told."""
        await asyncio.sleep(launch.simulation.start_s)
        if reason := _cannot_start(launch.simulation):
            raise EngineStartError(reason)
        return cls(launch)

    async def chat(self, body: bytes, request_id: str, tell: Tell) -> AsyncGenerator[Head | bytes, None]:
        """See Engine.chat."""
        request = json.loads(body)
        count, choices = request.get("max_tokens") or 16, request.get("n") or 1
        common = {"id": request_id, "created": 0, "model": self._endpoint_id}
        answering, prompt, made = self._tally.begin(), Tokens(), 0
        self._under_way += 1
        try:
            await asyncio.sleep(self._sim.first_token_s)
            prompt = self._read(request)
            if not request.get("stream"):
                for _ in range(count):
                    await self._make_token()
                    made += choices
                message = {"role": "assistant", "content": self._sim.word * count}
                texts = [{"index": i, "message": message, "finish_reason": "length"} for i in range(choices)]
                whole = common | {"object": "chat.completion", "choices": texts, "usage": _usage(prompt, made)}
                yield Head(status=200, content_type="application/json")
                yield _json(whole)
                return
            self._tally.first_token(answering)
            yield Head(status=200, content_type="text/event-stream", **prompt.model_dump(exclude={"completion_tokens"}))
            common |= {"object": "chat.completion.chunk"}
            for index in range(count):
                if index == self._sim.stall_after_tokens:
                    await asyncio.Event().wait()
                await self._make_token()
                finish = "length" if index == count - 1 else None
                delta = {"role": "assistant", "content": self._sim.word}
                for i in range(choices):
                    made += 1
                    yield _event(common | {"choices": [{"index": i, "delta": delta, "finish_reason": finish}]})
            if (request.get("stream_options") or {}).get("include_usage"):
                yield _event(common | {"choices": [], "usage": _usage(prompt, made)})
            yield b"data: [DONE]\n\n"
        finally:
            self._under_way -= 1
            tokens = prompt.model_copy(update={"completion_tokens": made})
            self._tally.end(answering, tokens, choices)
            tell(tokens)

    def _read(self, request: dict[str, Any]) -> Tokens:
        texts = [_text(message["content"]) for message in request["messages"]]
        count = 1 + sum(len(text.split()) for text in texts)
        known = hash(tuple(texts))
        cached = count - 1 if known in self._prompts else 0
        self._prompts[known] = None
        self._prompts.move_to_end(known)
        while len(self._prompts) > self._prompts_kept:
            self._prompts.popitem(last=False)
        return Tokens(prompt_tokens=count, cached_tokens=cached)

    async def _make_token(self) -> None:
        await asyncio.sleep(self._sim.between_tokens_s)
        if self._tokens_made == self._sim.die_after_tokens:
            os.kill(os.getpid(), signal.SIGKILL)
        self._tokens_made += 1

    async def check_health(self) -> None:
        """See Engine.check_health: a simulated engine dies only with its process."""

    async def stats(self) -> EngineStats:
        """See Engine.stats: whatever is beyond max_num_seqs counts as waiting, as it would in a real engine."""
        running = min(self._under_way, self._max_num_seqs)
        return self._tally.stats(
            running=running, waiting=self._under_way - running, kv_cache_pct=100.0 * running / self._max_num_seqs
        )

    def close(self) -> None:
        """See Engine.close."""


def _cannot_start(sim: Simulation) -> str | None:
    return sim.fail_start if sim.fail_start_while is None or Path(sim.fail_start_while).exists() else None


def _text(content: str | list[dict[str, str]] | None) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content or ())


def _usage(prompt: Tokens, made: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt.prompt_tokens, "completion_tokens": made, "total_tokens": prompt.prompt_tokens + made,
        "prompt_tokens_details": {"cached_tokens": prompt.cached_tokens},
    }  # fmt: skip


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _json(chunk)
