"""Logs of endpoints: lists in pages, searches, downloads, following, and their end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.control_plane.api.log_stream import LogStream
from app.control_plane.platform import Platform
from app.control_plane.retention import LOGS_KEPT
from app.control_plane.services import log_follower
from app.control_plane.services.following import FOLLOWED_FOR, POLL_S, News
from app.control_plane.services.log_follower import FIRST_LINES
from app.control_plane.services.log_places import LogPlaces
from app.control_plane.services.logs import LogStore
from app.core.errors import TooManyRequests
from app.core.log_lines import Wanted, write
from app.settings import Settings
from app.store.file_store import FileStore
from app.store.layout import LOGS, LogObject, log_hour
from app.store.object_store import ObjectStore, StoreUnavailable
from app.store.objects import open_store
from tests.control_plane.platforms import ONE_DATABASE, WAIT_S, by_name, spec, until_answer

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.moment = NOON + timedelta(minutes=30)

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform(open_platform: Callable[..., Platform], clock: Clock) -> Platform:
    return open_platform(spec("demo"), now=clock)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
def demo(platform: Platform) -> str:
    return by_name(platform)["demo"].id


Put = Callable[..., None]


@pytest.fixture
def put(store: ObjectStore, demo: str) -> Put:
    """Have lines in the log: (minutes after noon, text); their minute is in one hour."""

    def put(unit: str, *lines: tuple[float, str], number: int = 0, endpoint_id: str = demo) -> None:
        moments = [NOON + timedelta(minutes=minutes) for minutes, _ in lines]
        (hour,) = {log_hour(moment) for moment in moments}
        text = "".join(f"{write(line, moment)}\n" for moment, (_, line) in zip(moments, lines, strict=True))
        store.write(LogObject(endpoint_id, hour, unit, number).name, text.encode())

    return put


@pytest.fixture
def fetch(admin: httpx.AsyncClient, demo: str) -> Callable[..., Any]:
    async def fetch(**params: Any) -> httpx.Response:
        return await admin.get(f"/endpoints/{demo}/logs", params=params)

    return fetch


def messages(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [line["message"] for line in answer.json()["data"]]


async def all_pages(fetch: Callable[..., Any], **params: Any) -> list[str]:
    found: list[str] = []
    token: str | None = None
    for _ in range(100):
        answer = await fetch(**params, **({"page_token": token} if token else {}))
        found += messages(answer)
        token = answer.json()["next_page_token"]
        if token is None:
            return found
    raise AssertionError("the list has no end")


async def test_an_endpoint_without_logs(fetch: Callable[..., Any]) -> None:
    answer = await fetch()
    assert answer.json() == {"object": "list", "data": [], "next_page_token": None}
    assert (await fetch(download=True)).text == ""


async def test_lines_of_all_units_in_the_order_of_time(fetch: Callable[..., Any], put: Put) -> None:
    put("b", (1, "one"), (3, "three"))
    put("a", (2, "two"), (4, "four"))
    put("a", (5, "five"), number=1)
    put("a", (70, "in the next hour"))
    put("b", (-30, "in the hour before"))
    put("c", (1, "another endpoint's"), endpoint_id="ep-other")
    wanted = ["in the hour before", "one", "two", "three", "four", "five", "in the next hour"]
    assert messages(await fetch()) == wanted
    assert messages(await fetch(order="desc")) == wanted[::-1]
    first = (await fetch()).json()["data"][0]
    assert first == {
        "object": "log_line",
        "id": "2026-01-31T11:30:00.000Z~b~0~0",
        "created_at": "2026-01-31T11:30:00.000Z",
        "unit": "b",
        "message": "in the hour before",
    }


@ONE_DATABASE
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("page_size", [1, 2, 7, 1000])
async def test_pages_make_the_whole_list(fetch: Callable[..., Any], put: Put, order: str, page_size: int) -> None:
    for unit in ("a", "b"):  # with lines of the same moment, in one object and in two
        put(unit, *((minute // 3, f"{unit}{minute}") for minute in range(9)))
        put(unit, (3, f"{unit} three"), number=1)
        put(unit, (61, f"{unit} next hour"))
    whole = await all_pages(fetch, order=order)
    assert len(whole) == 22
    assert await all_pages(fetch, order=order, page_size=page_size) == whole


async def test_a_page_goes_on_where_the_log_has_grown_meanwhile(fetch: Callable[..., Any], put: Put) -> None:
    put("a", (1, "one"), (2, "two"))
    answer = await fetch(page_size=1)
    put("a", (1, "one"), (2, "two"), (3, "three"))
    assert messages(await fetch(page_token=answer.json()["next_page_token"])) == ["two", "three"]


async def test_search_and_window(fetch: Callable[..., Any], put: Put) -> None:
    put("a", (1, "Loading weights"), (2, "ready"), (3, "loading again"))
    put("a", (65, "LOADING once more"))
    assert messages(await fetch(search="loading")) == ["Loading weights", "loading again", "LOADING once more"]
    assert messages(await fetch(search="nothing like it")) == []
    assert messages(await fetch(since="2026-01-31T12:02:00Z", until="2026-01-31T13:05:00Z")) == [
        "ready",
        "loading again",
    ]
    assert messages(await fetch(since="2026-01-31T20:03:00+08:00", search="load")) == [
        "loading again",
        "LOADING once more",
    ]


async def test_a_long_search_goes_on_with_the_next_page(
    platform: Platform, put: Put, demo: str, store: ObjectStore
) -> None:
    for number in range(10):
        put("a", *((number + part / 100, f"line {number}.{part}") for part in range(50)), number=number)
    put("b", (29, "the one"))
    wanted = Wanted(demo, "the one")
    found, place, pages = [], None, 0
    while True:
        page = platform.logs.find(wanted, 10, place, scan_bytes=3000)
        found += page.lines
        pages += 1
        if page.next is None:
            break
        assert place is None or page.next > place
        place = page.next
    assert [line.text for line in found] == ["the one"]
    assert 3 < pages < 12


async def test_a_download_is_one_text(fetch: Callable[..., Any], put: Put, demo: str) -> None:
    put("a", *((minute / 100, f"line {minute}") for minute in range(1200)))
    answer = await fetch(download=True)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{demo}.log"'
    lines = answer.text.splitlines()
    assert lines[0] == "2026-01-31T12:00:00.000Z a line 0"
    assert len(lines) == 1200
    assert (await fetch(download=True, search="line 7", order="desc")).text.count("\n") == 111


@ONE_DATABASE
@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "2026-01-31T12:00:00.000Z~../x~0~1"}, "page_token"),
        ({"page_size": 0}, "page_size"),
        ({"since": "yesterday"}, "since"),
        ({"search": "a\nb"}, "search"),
        ({"follow": True, "download": True}, "download"),
        ({"follow": True, "until": "2026-01-31T12:00:00Z"}, "until"),
    ],
)
async def test_what_is_asked_for_wrongly(fetch: Callable[..., Any], params: dict[str, Any], param: str) -> None:
    answer = await fetch(**params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_endpoint_that_is_not_there(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/endpoints/ep-none/logs")).status_code == 404


async def test_a_store_that_is_away_is_said(
    fetch: Callable[..., Any], put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a", (1, "one"))

    def refuse(*_: object) -> bytes:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(FileStore, "read", refuse)
    answer = await fetch()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"


async def test_places_for_long_texts_are_limited_and_given_back(
    platform: Platform, fetch: Callable[..., Any], put: Put
) -> None:
    put("a", (1, "one"))
    for _ in range(20):
        assert (await fetch(download=True)).status_code == 200
    with ExitStack() as places:
        for _ in range(4):
            places.enter_context(platform.log_places.taken("default"))
        for long in ({"download": True}, {"follow": True}):
            answer = await fetch(**long)
            assert answer.status_code == 429
            assert "retry-after" in answer.headers
        assert (await fetch()).status_code == 200
        with platform.log_places.taken("ws-other"):  # who has places of their own
            pass
        for number in range(12):
            places.enter_context(platform.log_places.taken(f"ws-{number}"))
        with pytest.raises(TooManyRequests):
            places.enter_context(platform.log_places.taken("ws-one-too-many"))
    assert (await fetch(download=True)).status_code == 200


async def test_a_stream_that_never_begins_holds_no_place() -> None:
    """As one whose request was cancelled before its answer began."""
    places = LogPlaces()
    for _ in range(40):
        LogStream([], places.taken("default"), {})
    with places.taken("default"):
        pass


async def test_who_reads_logs_holds_nobody_up(platform: Platform) -> None:
    """Reports of units and routers are taken in asyncio's own few threads."""
    let_go = threading.Event()

    def slow() -> News:
        let_go.wait(WAIT_S)
        return News("", last=True)

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    readers = [asyncio.ensure_future(anext(platform.following.text(slow, lambda: True), "")) for _ in range(8)]
    async with asyncio.timeout(WAIT_S):
        assert await asyncio.to_thread(lambda: "reported") == "reported"
        let_go.set()
        assert await asyncio.gather(*readers) == [""] * 8


async def test_a_follower_does_not_begin_with_more_than_it_can_hold(
    platform: Platform, demo: str, put: Put, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "LOOK_BYTES", 200)
    for number in range(9):
        put("a", (number, f"object {number} " + "x" * 100), number=number)
    read, asked = FileStore.read, []

    def watched(store: FileStore, name: str, start: int = 0, length: int | None = None) -> bytes:
        asked.append(name)
        return read(store, name, start, length)

    monkeypatch.setattr(FileStore, "read", watched)
    follower = Follower(platform, Wanted(demo, since=NOON), clock)
    assert [line.split()[2:4] for line in (await follower.next()).splitlines()] == [["object", "7"], ["object", "8"]]
    assert len(asked) == 2
    put("a", (30, "new"), number=9)
    assert "new" in await follower.next()


class Follower:
    """Somebody who follows, with a clock of the test's."""

    def __init__(self, platform: Platform, wanted: Wanted, clock: Clock):
        self._clock = clock
        self._chunks = platform.following.text(platform.logs.follower(wanted), lambda: True, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        assert seconds == POLL_S
        self._clock.moment += timedelta(seconds=seconds)

    @property
    def chunks(self) -> AsyncIterator[str]:
        return self._chunks

    async def next(self) -> str:
        async with asyncio.timeout(WAIT_S):
            return await anext(self._chunks)


async def test_a_log_is_followed(platform: Platform, demo: str, put: Put, clock: Clock) -> None:
    put("a", (20, "before"), (29, "just now"))
    follower = Follower(platform, Wanted(demo), clock)
    assert [line[25:] for line in (await follower.next()).splitlines()] == ["a before", "a just now"]
    put("a", (20, "before"), (29, "just now"), (31, "new"))
    put("b", (30.5, "of another unit, and earlier"))
    assert (await follower.next()).splitlines() == [
        "2026-01-31T12:30:30.000Z b of another unit, and earlier",
        "2026-01-31T12:31:00.000Z a new",
    ]
    clock.moment = NOON + timedelta(hours=1, seconds=5)
    put("a", (60, "in the next hour"))
    assert "in the next hour" in await follower.next()


async def test_who_follows_sees_only_what_is_searched_for(
    platform: Platform, demo: str, put: Put, clock: Clock
) -> None:
    put("a", (20, "ERROR one"), (29, "fine"))
    follower = Follower(platform, Wanted(demo, "error"), clock)
    assert (await follower.next()).endswith(" a ERROR one\n")


async def test_following_begins_with_the_last_lines_or_at_a_moment(
    platform: Platform, demo: str, put: Put, clock: Clock
) -> None:
    put("a", *((minute / 100, f"line {minute}") for minute in range(500)))
    last = (await Follower(platform, Wanted(demo), clock).next()).splitlines()
    assert len(last) == FIRST_LINES
    assert last[-1].endswith("line 499")
    since = Wanted(demo, since=NOON + timedelta(minutes=3))
    assert len((await Follower(platform, since, clock).next()).splitlines()) == 200


async def test_following_over_midnight(platform: Platform, demo: str, put: Put, clock: Clock) -> None:
    clock.moment = NOON + timedelta(hours=11, minutes=59, seconds=50)
    follower = Follower(platform, Wanted(demo), clock)
    put("a", (719, "today"))
    assert "today" in await follower.next()
    clock.moment += timedelta(seconds=20)
    put("a", (721, "tomorrow"))
    assert "tomorrow" in await follower.next()


async def test_silence_is_broken_now_and_then_and_ends_after_an_hour(
    platform: Platform, demo: str, clock: Clock
) -> None:
    begun = clock.moment
    chunks = [chunk async for chunk in Follower(platform, Wanted(demo), clock).chunks]
    assert set(chunks) == {"\n"}
    assert 100 < len(chunks) <= 120
    assert clock.moment - begun == FOLLOWED_FOR


async def test_a_store_that_was_away_is_followed_on(
    platform: Platform, demo: str, put: Put, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a", (1, "one"))
    put("b", (2, "two"))
    read, failures = FileStore.read, iter([True, False, True])  # the second time in the middle

    def sometimes(store: FileStore, name: str, start: int = 0, length: int | None = None) -> bytes:
        if next(failures, False):
            raise StoreUnavailable("no answer")
        return read(store, name, start, length)

    monkeypatch.setattr(FileStore, "read", sometimes)
    lines = (await Follower(platform, Wanted(demo), clock).next()).splitlines()
    assert [line[25:] for line in lines] == ["a one", "b two"]


async def test_following_over_http(platform: Platform, fetch: Callable[..., Any], put: Put, clock: Clock) -> None:
    put("a", (29, "one"))

    def an_hour_is_over(unused: object = None) -> None:
        clock.moment += FOLLOWED_FOR

    asyncio.get_running_loop().call_later(0.3, an_hour_is_over)
    answer = await fetch(follow=True)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "2026-01-31T12:29:00.000Z a one\n"


def test_logs_go_after_their_time(platform: Platform, store: ObjectStore, put: Put, clock: Clock) -> None:
    put("a", (-24 * 60, "yesterday"))
    put("a", (1, "today"))
    put("b", (1, "another's"), endpoint_id="ep-gone")
    store.write(f"{LOGS}notes.txt", b"not a log")
    clock.moment = NOON + LOGS_KEPT
    while not platform.retention.step():
        pass
    assert [line.text for line in platform.logs.all(Wanted("ep-gone"))] == ["another's"]
    assert len(list(store.list(LOGS))) == 3
    clock.moment += timedelta(hours=1)
    platform.retention.step()
    assert [stored.name for stored in store.list(LOGS)] == [f"{LOGS}notes.txt"]


@ONE_DATABASE
def test_only_so_many_go_at_a_time(settings: Settings, clock: Clock) -> None:
    store = FileStore(settings.home / "elsewhere")
    for number in range(5):
        store.write(LogObject("ep-1", "20250101T00", "a", number).name, b"")
    logs = LogStore(store, clock)
    assert logs.drop_before(NOON, limit=3) == 3
    assert logs.drop_before(NOON, limit=3) == 2


async def test_what_is_deleted_keeps_its_logs(admin: httpx.AsyncClient, platform: Platform, put: Put) -> None:
    endpoint = platform.endpoints.create("default", spec("mine")).id
    put("a", (1, "why it went"), endpoint_id=endpoint)
    platform.endpoints.delete("default", endpoint)
    await until_answer(
        lambda: admin.get(f"/endpoints/{endpoint}?deleted=true"), lambda shown: shown["deleted_at"] is not None
    )
    assert messages(await admin.get(f"/endpoints/{endpoint}/logs")) == ["why it went"]
    assert "why it went" in (await admin.get(f"/endpoints/{endpoint}/logs?download=true")).text
    assert (await admin.get(f"/endpoints/{endpoint}/metrics")).json()["endpoint_id"] == endpoint
    platform.tombstones.purge("default", endpoint)
    for what in ("logs", "metrics"):
        assert (await admin.get(f"/endpoints/{endpoint}/{what}")).status_code == 404
