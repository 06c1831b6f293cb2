"""A router's record of usage: what is in it, what outlives the router, and how it comes to the control plane once."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import BadRequest
from app.core.usage import Account, Entry, Sums, rows_of
from app.router import usage_spool
from app.router.figures import SpoolFigures
from app.router.usage_file import UsageFile
from app.router.usage_sender import BATCH_BYTES, CLAIM_S, UsageSender
from app.router.usage_spool import UsageSpool
from tests.router.tables import Clock
from tests.router.usage_takers import ControlPlane, kill

ACCOUNT = Account("mine", "key-1", "ep-1")
AT = 1_770_000_000.0


def entry(number: int = 1, *, begun: bool = False, **fields: Any) -> Entry:
    told = {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 0 if begun else 3, "at": AT}
    more = {"number": number, "requests": 0 if begun else 1, "begun": begun}
    return Entry(**(ACCOUNT._asdict() | told | more | fields))


class Node:
    """Routers of one node; each has its own spool in the same folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.control_plane = ControlPlane()
        self.clock = Clock(0)
        self._routers = 0

    def router(self, **bounds: int) -> tuple[UsageSpool, UsageSender, SpoolFigures]:
        self._routers += 1
        figures = SpoolFigures()
        spool = UsageSpool(self.folder, f"r{self._routers}", figures, **bounds)
        return spool, UsageSender(spool, self.control_plane, self.clock), figures

    @property
    def files(self) -> list[str]:
        return sorted(os.listdir(self.folder)) if self.folder.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "usage")


async def test_what_is_written_is_sent_once(node: Node) -> None:
    spool, sender, figures = node.router()
    assert node.files == []  # a router without requests leaves nothing
    spool.write(entry(1, begun=True))
    spool.write(entry(1))
    spool.write(entry(2, partial_requests=1, completion_tokens=5))
    assert figures.waiting_bytes > 0
    await sender.step()
    await sender.step()
    wanted = Sums(prompt_tokens=20, cached_tokens=8, completion_tokens=8, requests=2, partial_requests=1)
    assert node.control_plane.sums == {ACCOUNT: wanted}
    assert (figures.waiting_bytes, node.control_plane.asked) == (0, 1)
    await sender.close()
    assert node.files == []


async def test_nothing_is_lost_while_the_control_plane_is_away(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    spool, sender, figures = node.router(file_bytes=2000)
    node.control_plane.away = True
    for number in range(1, 101):
        spool.write(entry(number))
        await sender.step()
    assert node.control_plane.requests == 0
    assert len(node.files) > 1
    assert caplog.text.count("takes no usage") == 1
    node.control_plane.away = False
    await sender.step()
    assert (node.control_plane.requests, figures.waiting_bytes) == (100, 0)
    assert len(node.files) == 1


async def test_a_batch_whose_answer_is_lost_counts_once(node: Node) -> None:
    spool, sender, _ = node.router()
    spool.write(entry(1))
    node.control_plane.answers_lost = 1
    await sender.step()
    spool.write(entry(2))
    await sender.step()
    assert node.control_plane.requests == 2


async def test_much_goes_in_batches_of_whole_lines(node: Node) -> None:
    spool, sender, _ = node.router()
    for number in range(1, 4001):
        spool.write(entry(number))
    await sender.step()
    assert node.control_plane.requests == 4000
    assert node.control_plane.asked > 4000 * 100 // BATCH_BYTES


async def test_what_a_killed_router_leaves_the_next_one_sends(node: Node) -> None:
    spool, sender, _ = node.router()
    spool.write(entry(1, begun=True))
    spool.write(entry(2, begun=True))
    spool.write(entry(1))
    await sender.step()
    spool.write(entry(3))
    kill(spool)
    await node.router()[1].step()
    assert (node.control_plane.requests, node.control_plane.partial) == (3, 1)  # the second never ended
    assert node.control_plane.sums[ACCOUNT].prompt_tokens == 30
    assert node.files == []


async def test_what_was_begun_in_one_file_and_ended_in_the_next_counts_once(node: Node) -> None:
    spool, sender, _ = node.router(file_bytes=500)
    for number in range(1, 10):
        spool.write(entry(number, begun=True))
    for number in range(1, 9):
        spool.write(entry(number))
        if number == 4:
            await sender.step()
    assert len(node.files) > 1
    kill(spool)
    await node.router()[1].step()
    assert (node.control_plane.requests, node.control_plane.partial) == (9, 1)


async def test_a_line_that_was_cut_is_no_line(node: Node) -> None:
    spool, _, _ = node.router()
    spool.write(entry(1))
    kill(spool)
    (name,) = node.files
    with (node.folder / name).open("ab") as file:
        file.write(b'{"workspace": "mi')
    await node.router()[1].step()
    assert node.control_plane.requests == 1
    assert node.files == []


async def test_two_routers_of_a_node_do_not_take_each_others_files(node: Node) -> None:
    one, sending_one, _ = node.router()
    other, sending_other, _ = node.router()
    node.control_plane.away = True
    one.write(entry(1))
    other.write(entry(1))
    await sending_one.step()
    await sending_other.step()
    assert len(one.files) == len(other.files) == 1
    kill(one)
    node.control_plane.away = False
    await sending_other.step()
    assert node.control_plane.requests == 1
    node.clock.now += CLAIM_S
    await sending_other.step()
    assert node.control_plane.requests == 2


async def test_a_file_that_was_taken_but_not_removed_does_not_count_again(node: Node) -> None:
    spool, sender, _ = node.router()
    spool.write(entry(1))
    await sender.step()
    kill(spool)
    assert len(node.files) == 1
    await node.router()[1].step()
    assert (node.control_plane.requests, node.files) == (1, [])


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Writes fail, every second time after some bytes."""
    full, write, turns = [True], os.write, [0]

    def some(descriptor: int, data: bytes) -> int:
        if not full[0]:
            return write(descriptor, data)
        turns[0] += 1
        if turns[0] % 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:5])

    monkeypatch.setattr("app.router.usage_file.os.write", some)

    def becomes(is_full: bool) -> None:
        full[0] = is_full

    return becomes


async def test_what_a_full_disk_does_not_take_is_kept_and_said(
    node: Node, full_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    spool, sender, figures = node.router()
    for number in range(1, 51):
        spool.write(entry(number))
    assert (figures.unwritten_requests, figures.lost_requests) == (50, 0)
    assert caplog.text.count("kept in memory") == 1
    full_disk(False)
    spool.write(entry(51))
    await sender.step()
    assert (node.control_plane.requests, figures.unwritten_requests) == (51, 0)
    assert node.control_plane.sums[ACCOUNT].prompt_tokens == 510


async def test_a_full_spool_goes_on_counting_in_memory(node: Node) -> None:
    spool, sender, figures = node.router(file_bytes=1000, spool_bytes=3000)
    node.control_plane.away = True
    for number in range(1, 101):
        spool.write(entry(number))
        await sender.step()
    assert sum((node.folder / name).stat().st_size for name in node.files) <= 3000
    assert figures.unwritten_requests > 0
    node.control_plane.away = False
    await sender.step()
    await sender.step()
    assert (node.control_plane.requests, figures.unwritten_requests) == (100, 0)


async def test_what_not_even_memory_has_room_for_is_in_the_metrics(
    node: Node, full_disk: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_spool, "MAX_SUMS", 2)
    spool, _, figures = node.router()
    for number in range(1, 6):
        spool.write(entry(number, key_id=f"key-{number}"))
    assert (figures.unwritten_requests, figures.lost_requests) == (2, 3)


def test_a_claimed_file_is_owned(tmp_path: Path) -> None:
    path = tmp_path / "r-1.jsonl"
    UsageFile.create(path).close()
    owner = UsageFile.claim(path)
    assert owner
    assert UsageFile.claim(path) is None
    owner.remove()
    assert UsageFile.claim(path) is None


def test_entries_add_up_by_account_and_hour() -> None:
    hour = entry().hour
    rows = rows_of([entry(1), entry(2), entry(3, at=AT + 3600), entry(4, endpoint_id="ep-2"), entry(5, begun=True)])
    assert [(row.endpoint_id, row.hour - hour, row.requests) for row in rows] == [
        ("ep-1", 0, 2), ("ep-1", 1, 1), ("ep-2", 0, 1),
    ]  # fmt: skip
    assert json.loads(rows[0].model_dump_json())["completion_tokens"] == 6


async def test_what_is_under_way_stays_where_it_is_while_no_next_file_can_be_made(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, _, _ = node.router(file_bytes=1)
    spool.write(entry(1, begun=True))

    def refuse(_: Path) -> UsageFile:
        raise OSError("no file can be made")

    monkeypatch.setattr(UsageFile, "create", refuse)
    spool.write(entry(2))
    kill(spool)
    await node.router()[1].step()
    assert (node.control_plane.requests, node.control_plane.partial) == (
        1,
        1,
    )  # and the second dies with the router's memory


async def test_a_file_that_is_refused_for_good_is_set_aside_and_holds_up_no_other(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    spool, sender, figures = node.router(file_bytes=300)
    take = node.control_plane.usage

    async def refusing_the_first(batch: str) -> int:
        if '"spool":"r1-1"' in batch:
            raise BadRequest("This is not a batch of usage.")
        return await take(batch)

    node.control_plane.usage = refusing_the_first  # type: ignore[method-assign]
    for number in range(1, 9):
        spool.write(entry(number))
    await sender.step()
    await sender.step()
    assert figures.lost_requests > 0
    assert node.control_plane.requests == 8 - figures.lost_requests
    assert caplog.text.count("set aside in r1-1.refused") == 1
    assert "r1-1.refused" in node.files
    assert "r1-1.jsonl" not in node.files
