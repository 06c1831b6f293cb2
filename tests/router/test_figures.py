"""What a router counts of the requests that it answers, and what it keeps."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.core.errors import BadRequest, InternalError, TooManyRequests, Unavailable
from app.core.keys import hash_key, issue_key
from app.core.reports import EndpointReport, RouterReport, status_class
from app.router.figures import KEYS_REPEATED_S, Figures
from tests.router.tables import KEY, OTHER_KEY, Clock, MakeRouter
from tests.router.test_chat import CHAT, body, failing, whole
from tests.router.test_limits import limited
from tests.router.test_streaming import DONE, chunk, failed_in_the_middle
from tests.router.units import WAIT_S, Answer, Script, forever
from tests.test_metrics import values

STREAM = body(stream=True)


def requests(**counts: int) -> dict[str, int]:
    return {"2xx": 0, "4xx": 0, "429": 0, "5xx": 0} | {name.strip("_"): count for name, count in counts.items()}


def of(router: Any, endpoint_id: str = "ep-1") -> EndpointReport:
    report: RouterReport = router.figures.report(7)
    return report.endpoints[endpoint_id]


async def test_a_streamed_answer_counts_with_its_first_bytes_and_its_end(make_router: MakeRouter) -> None:
    async def script(answer: Answer) -> None:
        router.clock.now += 0.4
        await answer.head()
        await answer.data(chunk("one"))
        await asyncio.sleep(0)
        await told.wait()
        router.clock.now += 1.6
        await answer.data(DONE)
        await answer.end()

    told = asyncio.Event()
    router = await make_router(script)
    send_first: list[float] = []

    async def watch(scope: Any, receive: Any, send: Any) -> None:
        async def seen(message: Any) -> None:
            if message["type"] == "http.response.body" and not send_first:
                send_first.append(router.clock.now)
                told.set()
            await send(message)

        await router.app(scope, receive, seen)

    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(watch), base_url="http://router", headers=headers, timeout=WAIT_S
    ) as http:
        assert (await http.post(CHAT, json=STREAM)).status_code == 200
    told_of = of(router)
    assert told_of.requests == requests(_2xx=1)
    assert (told_of.ttft_count, told_of.ttft_ms_sum) == (1, pytest.approx(400))
    assert (told_of.duration_count, told_of.duration_ms_sum) == (1, pytest.approx(2000))
    assert (told_of.running, told_of.last_request_at) == (0, router.wall.now)


async def test_a_whole_answer_has_no_first_token(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    await router.http().post(CHAT, json=body())
    assert (of(router).requests, of(router).ttft_count, of(router).duration_count) == (requests(_2xx=1), 0, 1)


@pytest.mark.parametrize(
    ("script", "stream", "counted"),
    [
        (failing(BadRequest("too long", "messages")), True, requests(_4xx=1)),
        (failing(TooManyRequests("busy")), False, requests(_429=1)),
        (failing(Unavailable("full")), True, requests(_5xx=1)),
        (failing(InternalError("broken")), False, requests(_5xx=1)),
        (failed_in_the_middle, True, requests(_5xx=1)),  # its status was 200
    ],
)
async def test_a_request_counts_by_how_it_ended(
    make_router: MakeRouter, script: Script, stream: bool, counted: dict[str, int]
) -> None:
    router = await make_router(script)
    await router.http().post(CHAT, json=body(stream=stream))
    assert of(router).requests == counted
    assert of(router).running == 0


async def test_refusals_by_the_router_count_for_the_endpoint_they_concern(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=limited(1))
    for model in ("ep-1", "demo", "down", "ep-theirs", "ep-9"):
        await router.http().post(CHAT, json=body(model=model))
    await router.http(issue_key()).post(CHAT, json=body())
    await router.http().post(CHAT, content=b"{")
    report = router.figures.report(7)
    assert set(report.endpoints) == {"ep-1", "ep-down"}  # whatever callers make up becomes no label
    assert of(router).requests == requests(_2xx=1, _429=1)
    assert of(router, "ep-down").requests == requests(_5xx=1)
    assert of(router, "ep-down").last_request_at == router.wall.now
    samples = values(report.prometheus)
    nobody = (("endpoint", ""), ("router", "router-1"), ("status", "4xx"))
    assert samples["modelunit_requests_total", nobody] == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_leaves_before_the_first_byte(
    make_router: MakeRouter, serve: Callable[..., str], stream: bool
) -> None:
    called = asyncio.Event()

    async def script(answer: Answer) -> None:
        called.set()
        await forever(answer)

    router = await make_router(script)
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        asyncio.timeout(WAIT_S),
        httpx.AsyncClient(base_url=serve(router.app), headers=headers, trust_env=False) as http,
    ):
        asking = asyncio.create_task(http.post(CHAT, json=body(stream=stream)))
        await called.wait()
        assert (of(router).running, of(router).requests) == (1, requests())
        asking.cancel()
        await router.units.responses[0].cancelled.wait()
        assert (of(router).running, of(router).requests) == (0, requests(_4xx=1))


async def test_prometheus_reads_what_the_report_says(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    await router.http().post(CHAT, json=body())
    samples = values(router.figures.exposition(7))
    labels = (("endpoint", "ep-1"), ("router", "router-1"))
    assert samples["modelunit_requests_total", (*labels, ("status", "2xx"))] == 1
    assert samples["modelunit_running_requests", labels] == 0
    assert samples["modelunit_request_duration_seconds_count", labels] == 1
    assert samples["modelunit_routing_table_number", (("router", "router-1"),)] == 7
    assert all(dict(key)["router"] == "router-1" for _, key in samples)


def test_a_duration_falls_into_every_bucket_above_it() -> None:
    clock = Clock(0)
    figures = Figures("r", clock, clock)
    for seconds in (0.1, 0.11, 9999):
        with figures.request() as counted:
            counted.concerns("ep-1")
            clock.now += seconds
    samples = values(figures.exposition(1))
    buckets = {dict(key)["le"]: value for (name, key), value in samples.items() if "duration_seconds_bucket" in name}
    assert (buckets["0.1"], buckets["0.25"], buckets["3600"], buckets["+Inf"]) == (1, 2, 2, 3)


async def test_good_keys_are_noted_with_their_last_use_and_bad_ones_are_not(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    await router.http().post(CHAT, json=body())
    router.wall.now += 5
    await router.http().post(CHAT, json=body(temperature=9))
    await router.http(OTHER_KEY).get("/v1/models")
    await router.http(issue_key()).get("/v1/models")
    assert router.figures.report(7).keys == {hash_key(KEY): router.wall.now, hash_key(OTHER_KEY): router.wall.now}
    assert KEY not in router.figures.report(7).model_dump_json()


def test_what_was_reported_long_ago_is_forgotten_and_nothing_else() -> None:
    wall = Clock(1000)
    figures = Figures("r", Clock(0), wall)
    figures.key_used("old")
    wall.now += KEYS_REPEATED_S + 1
    figures.key_used("new")
    told = figures.report(1)
    figures.key_used("old")  # again, and nobody has heard of that yet
    wall.now += KEYS_REPEATED_S + 1
    figures.reported(told, {})
    assert set(figures.report(1).keys) == {"old"}


def test_figures_of_an_endpoint_that_is_gone_stay_until_they_were_reported() -> None:
    figures = Figures("r", Clock(0), Clock(0))
    running = figures.request()
    with running:
        running.concerns("ep-gone")
        early = figures.report(1)
        figures.reported(early, {})
        assert figures.report(1).endpoints["ep-gone"].running == 1
    figures.reported(early, {})
    last = figures.report(1)
    assert last.endpoints["ep-gone"].duration_count == 1
    figures.reported(last, {"ep-gone"})
    assert set(figures.report(1).endpoints) == {"ep-gone"}
    figures.reported(last, {})
    assert figures.report(1).endpoints == {}


def test_a_report_survives_json() -> None:
    figures = Figures("r", Clock(0), Clock(12.5))
    with figures.request() as counted:
        counted.concerns("ep-1")
        counted.answered(200, streamed=True)
    report = figures.report(3)
    assert RouterReport.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["started_at"] == 12.5


@pytest.mark.parametrize(
    ("status", "counted"), [(200, "2xx"), (302, "2xx"), (400, "4xx"), (429, "429"), (499, "4xx"), (500, "5xx")]
)
def test_statuses_fall_into_classes(status: int, counted: str) -> None:
    assert status_class(status) == counted
