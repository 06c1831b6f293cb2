"""What the router is compared with: chat as Serve alone would have it, on the same simulated engine.

An ingress behind Serve's own proxy takes the body and passes it to a unit by handle. A plain answer comes back as the
call's result, a stream by Serve's generators. It checks nothing and counts nothing.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.unit.engine import EngineLaunch, Head, Simulation
from app.unit.simulated_engine import SimulatedEngine

MAX_ONGOING_REQUESTS = 1024


class BareArgs(BaseModel):
    """`args` of the application in a serve config."""

    simulation: Simulation


class Unit:
    """Has the engine in its own process, as a replica with vLLM's AsyncLLM would have."""

    def __init__(self, simulation: dict[str, Any]):
        launch = EngineLaunch(
            kind="simulated", endpoint_id="bare", model_dir="", max_model_len=4096, max_num_seqs=64,
            prefix_caching=False, enforce_eager=True, kv_cache_bytes=None, threads=1, log_file="",
            simulation=Simulation.model_validate(simulation),
        )  # fmt: skip
        self._engine = SimulatedEngine(launch)

    async def stream(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """An answer's bytes as they come."""
        async with aclosing(self._engine.chat(body, "bare", lambda _: None)) as parts:
            async for part in parts:
                if not isinstance(part, Head):
                    yield part

    async def chat(self, body: bytes) -> bytes:
        """A whole answer."""
        return b"".join([part async for part in self.stream(body)])


class Ingress:
    """Passes bodies on."""

    def __init__(self, unit: DeploymentHandle):
        self._unit = unit

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if json.loads(body).get("stream"):
            parts = self._unit.options(stream=True).stream.remote(body)
            return StreamingResponse(parts, media_type="text/event-stream")
        return Response(await self._unit.chat.remote(body), media_type="application/json")


def build(args: BareArgs) -> Any:
    """The application; named by import path in the config that the benchmark deploys."""
    options: dict[str, Any] = {"max_ongoing_requests": MAX_ONGOING_REQUESTS, "ray_actor_options": {"num_cpus": 0}}
    unit = serve.deployment(Unit).options(**options).bind(args.simulation.model_dump())
    return serve.deployment(Ingress).options(**options).bind(unit)
