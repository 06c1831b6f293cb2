import pytest

from app.core.waiting import Room, shortage, without_counts

GIB = 1 << 30


def node(free: dict[str, float], **total: float) -> Room:
    """A node that has what is free, and `total` where that is more."""
    return Room({**free, **total}, free)


def h100s(count: int, free: int) -> Room:
    return Room({"CPU": 64, "GPU": count, "accelerator_type:H100": 1}, {"CPU": 8, "GPU": free})


TWO_H100 = {"CPU": 1, "GPU": 2, "accelerator_type:H100": 0.001}

CASES = [
    ("all of it is free", TWO_H100, [h100s(8, 2)], ""),
    ("too few are free", TWO_H100, [h100s(8, 1)], "waiting for 2 x H100, 1 free"),
    ("none is free", TWO_H100, [h100s(8, 0)], "waiting for 2 x H100, 0 free"),
    ("another type does not count", TWO_H100,
     [h100s(8, 0), Room({"GPU": 8, "accelerator_type:A100": 1}, {"GPU": 8})], "waiting for 2 x H100, 0 free"),
    ("nor does what other nodes have", TWO_H100, [h100s(8, 1), h100s(8, 1)],
     "waiting for 2 x H100, 1 free on one node"),
    ("no node will ever do", {"GPU": 8, "accelerator_type:H100": 0.001}, [h100s(4, 4), h100s(4, 4)],
     "waiting for 8 x H100, no node has more than 4"),
    ("there is no such type", TWO_H100, [node({"CPU": 2})], "waiting for 2 x H100, no node has any"),
    ("there is no cluster", {"CPU": 1}, [], "waiting for 1 CPU, no node has any"),
    ("any type", {"CPU": 1, "GPU": 1}, [node({"CPU": 2}, GPU=1)], "waiting for 1 x GPU, 0 free"),
    ("parts of a CPU", {"CPU": 0.25}, [node({}, CPU=2)], "waiting for 0.25 CPU, 0 free"),
    ("of what Ray counts in ten-thousandths", {"CPU": 0.3}, [node({"CPU": 0.1 + 0.2}, CPU=2)], ""),
    ("parts are free", {"CPU": 0.25}, [node({"CPU": 1 / 3 - 0.2}, CPU=2)], "waiting for 0.25 CPU, 0.1333 free"),
    ("the nodes that have the cards lack CPUs", TWO_H100, [Room(h100s(8, 8).total, {"GPU": 8}), node({"CPU": 9})],
     "waiting for 1 CPU, 0 free"),
    ("a resource of the operator's", {"CPU": 1, "head": 1}, [node({"CPU": 1}, head=1)], "waiting for 1 x head, 0 free"),
    ("memory", {"memory": 2.5 * GIB}, [node({"memory": GIB}, memory=8 * GIB)],
     "waiting for 2.5 GiB of memory, 1.0 GiB free"),
    ("nothing is needed", {"CPU": 0}, [], ""),
]  # fmt: skip


@pytest.mark.parametrize(("needed", "nodes", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_unit_waits_for(needed: dict[str, float], nodes: list[Room], text: str) -> None:
    assert shortage(needed, nodes) == text


@pytest.mark.parametrize(
    ("reason", "lasting"),
    [
        ("the first unit is fetching weights: 1.2 of 4.7 GiB", "the first unit is fetching weights"),
        (
            "a unit was lost; another is fetching weights: 0.0 of 0.2 MiB",
            "a unit was lost; another is fetching weights",
        ),
        ("the first unit is waiting for 0.25 CPU, 0.1333 free", "the first unit is waiting for 0.25 CPU"),
        ("waiting for 2.5 GiB of memory, 1.0 GiB free on one node", "waiting for 2.5 GiB of memory"),
        ("waiting for 8 x H100, no node has more than 4", "waiting for 8 x H100, no node has more than 4"),
        ("its model is preparing (copying 40 %)", "its model is preparing (copying)"),
        ("config.json has 2 bytes, its manifest says 3: it was changed",) * 2,
        ("", ""),
    ],
)
def test_counts_are_not_news(reason: str, lasting: str) -> None:
    assert without_counts(reason) == lasting


def test_every_shortage_keeps_its_words_while_only_counts_change() -> None:
    texts = {without_counts(shortage(TWO_H100, [h100s(8, 1), h100s(8, other)])) for other in (0, 1)}
    assert texts == {"waiting for 2 x H100"}
