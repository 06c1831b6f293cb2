"""Which jobs begin, which wait and for what, and which leave."""

from typing import Any

from app.core.job_queue import RANK, JobQueue, Place, leaves
from app.core.specs import CPU_SMALL, MachineType
from app.core.waiting import Room, lacks_room

CARDS = MachineType(name="a100-2", accelerator="A100", accelerator_count=2, cpus=2)


def place(job_id: str = "job-1", machine: MachineType = CARDS, instances: int = 1, **fields: Any) -> Place:
    return Place(job_id, machine, instances, **fields)


def node(cards: float, cpus: float = 16.0, **labels: str) -> Room:
    free = {"CPU": cpus, "GPU": cards, "accelerator_type:A100": 1.0}
    return Room({**free, "GPU": 8.0}, free, labels)


def test_what_fits_begins_and_takes_its_room() -> None:
    queue = JobQueue([node(4)])
    assert queue.held(place("a")) == ""
    assert queue.held(place("b")) == ""
    assert queue.held(place("c")) == "waiting for 2 x A100, 0 free"


def test_nobody_passes_one_that_waits_for_the_same_kind() -> None:
    queue = JobQueue([node(4)])
    assert queue.held(place("large", instances=3)).startswith("waiting for")
    assert queue.held(place("small")) == "waiting behind job large"
    assert queue.held(place("theirs", workspace="ws-2")) == "waiting behind another job"
    assert queue.held(place("other", CPU_SMALL)) == ""


def test_each_instance_may_have_another_node_but_none_is_split() -> None:
    assert JobQueue([node(2), node(2)]).held(place(instances=2)) == ""
    assert JobQueue([node(1), node(1)]).held(place()) == "waiting for 2 x A100, 1 free on one node"
    labelled = CARDS.model_copy(update={"labels": {"zone": "b"}})
    assert JobQueue([node(4, zone="a"), node(4, zone="b")]).held(place(machine=labelled)) == ""
    assert JobQueue([node(4, zone="a")]).held(place(machine=labelled)).endswith("no node has any")


def test_what_the_cluster_can_never_hold_is_told() -> None:
    eight = CARDS.model_copy(update={"accelerator_count": 16})
    assert JobQueue([node(8)]).held(place(machine=eight)) == "waiting for 16 x A100, no node has more than 8"


def test_what_the_cluster_can_never_hold_stops_nobody() -> None:
    queue = JobQueue([node(4), node(2)], reserve={"GPU": 2})
    for job_id, fields in {
        "wide": {"instances": 64},
        "large": {"machine": CARDS.model_copy(update={"accelerator_count": 16})},
        "of-the-reserve": {"instances": 8},  # of which 7 fit
    }.items():
        assert queue.held(place(job_id, **fields)).startswith("waiting for")
    assert queue.held(place("small")) == ""


def test_the_reserve_stays_free() -> None:
    queue = JobQueue([node(4)], reserve={"GPU": 2, "CPU": 1})
    assert queue.held(place("a")) == ""
    assert queue.held(place("b")) == "waiting for 2 x GPU: 2 are kept free for endpoints"


def test_a_reserve_of_what_a_job_does_not_take_is_none_of_its_business() -> None:
    assert JobQueue([Room({"CPU": 2.0}, {"CPU": 2.0})], reserve={"GPU": 1}).held(place(machine=CPU_SMALL)) == ""


def test_what_was_promised_before_is_taken() -> None:
    assert JobQueue([node(2)], taken=[place("before")]).held(place()).startswith("waiting for")


def test_endpoints_that_wait_come_first() -> None:
    queue = JobQueue([node(4)], short={"ep-1": CARDS})
    assert queue.held(place()) == "waiting: an endpoint needs room first"
    assert queue.held(place(machine=CPU_SMALL)) == ""


def test_while_the_cluster_does_not_tell_ray_decides() -> None:
    assert JobQueue(None, short={"ep-1": CARDS}).held(place()) == ""


def test_the_least_important_and_youngest_that_may_be_asked_leaves() -> None:
    running = [
        place("stays", rank=RANK["low"]),
        place("old", rank=RANK["low"], preemptible=True),
        place("young", rank=RANK["low"], preemptible=True),
        place("dear", rank=RANK["high"], preemptible=True),
        place("other", CPU_SMALL, rank=RANK["low"], preemptible=True),
    ]
    found = leaves({"ep-1": CARDS}, running)
    assert found
    assert found.job_id == "young"
    assert leaves({"ep-1": CARDS}, running[:1]) is None
    assert leaves({}, running) is None


def test_a_lack_of_room_is_read_out_of_a_reason() -> None:
    assert lacks_room("a unit is waiting for 2 x H100, 1 free")
    assert lacks_room("the first unit is waiting for 0.25 CPU, 0 free")
    assert not lacks_room("its model is preparing (waiting for a job)")
