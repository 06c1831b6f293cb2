"""The code that the control plane gives out is run as it is, against a router with the simulated engine."""

import asyncio
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from app.core.snippets import Client, snippet
from app.unit.engine import EngineLaunch, Head, Simulation
from app.unit.simulated_engine import SimulatedEngine
from tests.router.tables import KEY, MakeRouter
from tests.router.units import Answer

RUN_TIMEOUT_S = 60.0


async def simulated(answer: Answer) -> None:
    """A unit with the simulated engine."""
    launch = EngineLaunch(
        kind="simulated", endpoint_id="ep-1", model_dir="", log_file="", max_model_len=4096, max_num_seqs=1,
        prefix_caching=False, enforce_eager=True, kv_cache_bytes=None, threads=None,
        simulation=Simulation(word="hello ", first_token_s=0, between_tokens_s=0),
    )  # fmt: skip
    engine = await SimulatedEngine.start(launch)
    async for part in engine.chat(answer.body, "req-1", lambda _: None):
        if isinstance(part, Head):
            await answer.head(part.content_type, part.status)
        else:
            await answer.data(part)
    await answer.end()


async def run(command: list[str], folder: Path, key: str) -> tuple[int, str, str]:
    """Exit status and what was printed, with nothing in the environment but the key."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "NO_PROXY": "127.0.0.1",
            "MODELUNIT_API_KEY": key,
            "ARK_API_KEY": key,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(RUN_TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def command_for(language: str, code: str) -> list[str]:
    return [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]


@pytest.mark.parametrize("client", get_args(Client))
async def test_a_snippet_runs_as_it_is(
    client: Client, make_router: MakeRouter, serve: Callable[[ASGIApp], str], tmp_path: Path
) -> None:
    if client == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    router = await make_router(simulated)
    made = snippet(client, "ep-1", "mine", serve(router.app))
    status, out, err = await run(command_for(made.language, made.code), tmp_path, KEY)
    assert (status, err if status else "") == (0, "")
    assert "hello hello hello" in out
    assert b'"Hello"' in router.units.bodies[0]


README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", README.partition("## Calling it\n")[2].partition("\n## ")[0], re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_of_the_readme_runs_as_it_is(
    number: int, make_router: MakeRouter, serve: Callable[[ASGIApp], str], tmp_path: Path
) -> None:
    language, code = EXAMPLES[number]
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    router = await make_router(simulated)
    here = code.replace("http://127.0.0.1:8000", serve(router.app))
    status, out, err = await run(command_for(language, here), tmp_path, KEY)
    assert (status, err if status else "") == (0, "")
    assert "hello hello hello" in out


def test_the_readme_has_an_example_for_each_client() -> None:
    clients = (
        "openai",
        "volcenginesdkarkruntime",
        "langchain_openai",
        "requests",
        "curl",
        "httpx",
        "Dify",
        "Open WebUI",
    )
    assert not [client for client in clients if client not in README.partition("## Calling it\n")[2]]
    assert len(EXAMPLES) == 6


async def test_the_control_plane_learns_by_which_address_callers_reach_us(
    make_router: MakeRouter, serve: Callable[[ASGIApp], str]
) -> None:
    async def told(request: Request) -> JSONResponse:
        return JSONResponse(request.headers.get("x-forwarded-host"))

    control_plane = serve(Starlette(routes=[Route("/platform/{path:path}", told)]))
    router = await make_router(serve_proxy_url=control_plane)
    for given, heard in (({"host": "here:8000"}, "here:8000"), ({"x-forwarded-host": "outside"}, "outside")):
        answer = await router.http().get("/platform/v1/endpoints", headers=given)
        assert answer.json() == heard


async def test_a_snippet_with_a_wrong_key_fails_and_says_why(
    make_router: MakeRouter, serve: Callable[[ASGIApp], str], tmp_path: Path
) -> None:
    router = await make_router(simulated)
    made = snippet("curl", "ep-1", "mine", serve(router.app))
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    status, out, _ = await run(command_for(made.language, made.code), tmp_path, KEY[:-1])
    assert status == 22
    assert "not valid" in out
