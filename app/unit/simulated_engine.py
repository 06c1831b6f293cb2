"""An engine without a model, for tests: its timing and its faults are settings. Never a default."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

from app.core.errors import EngineStartError
from app.core.reports import EngineStats
from app.unit.engine import EngineLaunch, Head, Simulation
from app.unit.engine_tally import EngineTally, Usage


class SimulatedEngine:
    """Answers every chat with the same word, as often as max_tokens says."""

    def __init__(self, launch: EngineLaunch):
        self._sim = launch.simulation
        self._endpoint_id = launch.endpoint_id
        self._max_num_seqs = launch.max_num_seqs
        self._tokens_made = 0
        self._under_way = 0
        self._tally = EngineTally()

    @classmethod
    async def start(cls, launch: EngineLaunch) -> "SimulatedEngine":
        """Wait as long as told, then serve or fail as told."""
        await asyncio.sleep(launch.simulation.start_s)
        if reason := _cannot_start(launch.simulation):
            raise EngineStartError(reason)
        return cls(launch)

    async def chat(self, body: bytes, request_id: str) -> AsyncGenerator[Head | bytes, None]:
        """See Engine.chat."""
        request = json.loads(body)
        count = request.get("max_tokens") or 16
        common = {"id": request_id, "created": 0, "model": self._endpoint_id}
        answering, made = self._tally.begin(), 0
        self._under_way += 1
        try:
            await asyncio.sleep(self._sim.first_token_s)
            if not request.get("stream"):
                for _ in range(count):
                    await self._make_token()
                    made += 1
                message = {"role": "assistant", "content": self._sim.word * count}
                choice = {"index": 0, "message": message, "finish_reason": "length"}
                usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
                yield Head(status=200, content_type="application/json")
                yield json.dumps(common | {"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
                return
            self._tally.first_token(answering)
            yield Head(status=200, content_type="text/event-stream")
            for index in range(count):
                if index == self._sim.stall_after_tokens:
                    await asyncio.Event().wait()
                await self._make_token()
                made += 1
                finish = "length" if index == count - 1 else None
                delta = {"role": "assistant", "content": self._sim.word}
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                event = json.dumps(common | {"object": "chat.completion.chunk", "choices": [choice]})
                yield f"data: {event}\n\n".encode()
            yield b"data: [DONE]\n\n"
        finally:
            self._under_way -= 1
            self._tally.end(answering, Usage(prompt_tokens=1, completion_tokens=made))

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
