"""What fits on which machine type, and which one is chosen."""

from typing import Any

import pytest

from app.core.findings import Facts
from app.core.machines import choose, driver_problem, fit, memory_bytes
from app.core.needs import Needs, length_tokens, needs_of
from app.core.servable import Shape
from app.core.specs import CPU_SMALL, GPU_1, DeploymentMode, EndpointSpec, MachineType, Precision

GIB = 1 << 30
L4 = MachineType(name="l4", accelerator="L4", accelerator_count=1, accelerator_memory_bytes=24 * GIB, cpus=4)
A100 = MachineType(name="a100", accelerator="A100-40G", accelerator_count=1, accelerator_memory_bytes=40 * GIB, cpus=8)
H100 = MachineType(
    name="h100-8",
    accelerator="H100",
    accelerator_count=8,
    accelerator_memory_bytes=80 * GIB,
    modes=(
        DeploymentMode(machines=2, tensor_parallel_size=8, pipeline_parallel_size=2),
        DeploymentMode(tensor_parallel_size=8),
    ),
)
SMALL = CPU_SMALL.model_copy(update={"memory_bytes": 4 * GIB})


def needs(precision: Precision = "BF16", weights_gib: float | None = None, **fields: Any) -> Needs:
    weights = None if weights_gib is None else int(weights_gib * GIB)
    shape = {name: fields.pop(name) for name in ("scaled_by", "group_size", "block", "heads") if name in fields}
    return Needs(Shape(precision, **shape), weights_bytes=weights, **fields)


def test_a_missing_accelerator_is_named():
    found = fit(needs("W8A8_FP8", scaled_by="channel"), CPU_SMALL)
    assert not found.ok
    assert found.reasons == (
        "precision W8A8_FP8 with one scale per channel needs an accelerator; a CPU serves it in blocks only",
    )


def test_what_an_operator_allows_counts_alone():
    machine = A100.model_copy(update={"precisions": ("BF16", "W8A8_FP8")})
    assert fit(needs("W8A8_FP8"), machine).ok
    assert fit(needs("AWQ-W4A16"), machine).reasons == (
        "precision AWQ-W4A16 is not served on a100; it serves: BF16, W8A8_FP8",
    )


def test_memory_is_refused_with_both_numbers():
    found = fit(needs(weights_gib=23, kv_bytes=2 * GIB), L4)
    assert found.reasons == (
        "a unit needs 25.0 GiB (weights 23.0 GiB, KV cache 2.0 GiB), but l4 has 22.1 GiB for it on 1 x L4",
    )
    assert found.mode is None
    assert fit(needs(weights_gib=20, kv_bytes=2 * GIB), L4).ok


def test_main_memory_holds_weights_and_the_whole_kv_cache():
    assert fit(needs(weights_gib=3.5), SMALL).ok  # and 512 MiB of KV cache
    (reason,) = fit(needs(weights_gib=3.6), SMALL).reasons
    assert "4.1 GiB" in reason
    assert "4.0 GiB of main memory" in reason


def test_one_request_must_fit_into_the_kv_cache():
    (reason,) = fit(needs(kv_bytes=600 << 20), CPU_SMALL).reasons
    assert "512 MiB" in reason
    assert "600 MiB" in reason
    assert fit(needs(kv_bytes=600 << 20, kv_cache_bytes=GIB), CPU_SMALL).ok
    assert not fit(needs(kv_bytes=600 << 20, kv_cache_bytes=100 << 20), GPU_1).ok


def test_several_reasons_are_all_told():
    assert len(fit(needs("W4A8", 100), L4).reasons) == 2


def test_what_is_not_known_is_not_refused():
    assert fit(needs(), SMALL).ok
    assert fit(needs(weights_gib=10_000), GPU_1).ok
    assert fit(needs(weights_gib=10_000), CPU_SMALL).ok


def test_a_unit_takes_the_fewest_machines_that_hold_it():
    one, two = fit(needs(weights_gib=500), H100).mode, fit(needs(weights_gib=700), H100).mode
    assert one is not None
    assert two is not None
    assert (one.machines, one.tensor_parallel_size) == (1, 8)
    assert (two.machines, two.pipeline_parallel_size) == (2, 2)
    (reason,) = fit(needs(weights_gib=2000), H100).reasons
    assert "8 x H100 in each of 2 machines" in reason


def chosen(wanted: Needs, *machines: MachineType, present: set[str] | None = None) -> tuple[str, str]:
    found = choose(wanted, machines, present)
    assert found is not None
    return found[0].name, found[1]


def test_the_smallest_that_fits_is_chosen_and_says_why():
    every = (H100, A100, L4, SMALL)
    assert chosen(needs(weights_gib=2), *every)[0] == "cpu-small"
    name, why = chosen(needs(weights_gib=14, kv_bytes=GIB), *every)
    assert name == "l4"
    assert why.startswith("weights 14.0 GiB, KV cache of one request 1.0 GiB; the smallest that fits; not cpu-small:")
    assert chosen(needs(weights_gib=30), *every)[0] == "a100"
    assert chosen(needs("W8A8_FP8", 30, scaled_by="tensor"), *every)[0] == "h100-8"
    assert choose(needs(weights_gib=5000), every) is None


def test_types_with_nodes_come_first():
    every = (SMALL, L4, A100)
    assert chosen(needs(weights_gib=2), *every, present={"a100"}) == (
        "a100",
        "weights 2.0 GiB; the smallest that fits; no node is there now for cpu-small, l4",
    )
    name, why = chosen(needs(weights_gib=10), *every, present={"cpu-small"})
    assert name == "l4"
    assert why.endswith("no node is there for it yet")


def test_where_a_node_has_cards_they_come_before_cpus():
    name, why = chosen(needs(weights_gib=2), SMALL, A100, L4, present={"cpu-small", "l4", "a100"})
    assert (name, "cards come before CPUs" in why) == ("l4", True)
    assert chosen(needs(), CPU_SMALL, GPU_1, present={"cpu-small", "gpu-1"})[0] == "gpu-1"
    for present in ({"cpu-small"}, set[str](), None):
        name, why = chosen(needs(), CPU_SMALL, GPU_1, present=present)
        assert (name, "cards" in why) == ("cpu-small", False)
    on_cpu = needs("W8A8_FP8", 2, scaled_by="block")
    assert chosen(on_cpu, SMALL, A100, present={"cpu-small", "a100"})[0] == "cpu-small"  # which cannot hold FP8


def test_memory_of_a_unit():
    assert memory_bytes(CPU_SMALL) is None
    assert memory_bytes(GPU_1) is None
    assert memory_bytes(SMALL) == 4 * GIB
    assert memory_bytes(L4) == int(24 * GIB * 0.92)
    assert memory_bytes(H100) == int(2 * 8 * 80 * GIB * 0.92)


@pytest.mark.parametrize(
    ("wanted", "found", "problem"),
    [
        (None, None, None),
        (None, "580.1", None),
        ("23.0.5", "23.0.5", None),
        ("23.0.5", "23.0.6", "the machine type needs the accelerator driver 23.0.5; this node has 23.0.6"),
        (
            "23.0.5",
            None,
            "the machine type needs the accelerator driver 23.0.5; this node has none that tells its version",
        ),
    ],
)
def test_drivers(wanted: str | None, found: str | None, problem: str | None):
    assert driver_problem(wanted, found) == problem


def of(facts: Facts, stored: int = 0, parameters_b: float | None = None, **fields: Any) -> Needs:
    return needs_of(EndpointSpec.model_validate({"name": "n", "model": "m"} | fields), facts, stored, parameters_b)


def test_needs_come_from_what_validation_found():
    facts = Facts(weights_bytes=4_000, parameters=1_000, kv_bytes_per_token=10, scaled_by="block")
    found = of(facts, 9_999, max_model_len=100)
    assert found == Needs(
        Shape("BF16", scaled_by="block"), weights_bytes=2_000, kv_bytes=1_000
    )  # 32-bit files, 16-bit units
    assert of(facts, precision="W8A8_FP8").weights_bytes == 4_000


def test_layers_with_a_window_keep_no_more_than_that():
    facts = Facts(kv_bytes_per_token=10, kv_window_bytes_per_token=8, kv_window_tokens=50)
    assert of(facts, max_model_len=1000).kv_bytes == 2 * 1000 + 8 * 50
    assert of(facts, max_model_len=20).kv_bytes == 200


def test_the_longest_request_is_what_is_wished_else_what_the_model_takes():
    short, long = Facts(max_length_tokens=2048), Facts(max_length_tokens=131_072)
    assert [length_tokens(None, facts) for facts in (Facts(), short, long)] == [4096, 2048, 4096]
    assert [length_tokens(None, facts, 32_768) for facts in (Facts(), short, long)] == [32_768, 2048, 32_768]
    assert length_tokens(512, short, 32_768) == 512
    assert length_tokens(None, Facts(max_length_tokens=1)) == 16
    assert of(Facts(kv_bytes_per_token=10, max_length_tokens=2048)).kv_bytes == 20_480


def test_without_facts_files_and_the_name_tell():
    assert of(Facts()).weights_bytes is None
    assert of(Facts(), 5_000).weights_bytes == 5_000
    assert of(Facts(), 0, 7).weights_bytes == int(7e9 * 2 * 0.9)
    assert of(Facts(), 28_000_000_000, 7).weights_bytes == int(7e9 * 2 * 0.9)  # 32 bits in the files
    assert of(Facts(), 0, 7, precision="AWQ-W4A16").weights_bytes == int(7e9 * 0.5 * 0.9)
    assert of(Facts(), 4_000_000_000, 7, precision="AWQ-W4A16").weights_bytes == 4_000_000_000


def test_a_unit_takes_a_mode_in_which_it_can_be_served():
    two = MachineType(
        name="two", accelerator="L4", accelerator_count=2, accelerator_memory_bytes=24 * GIB,
        modes=(DeploymentMode(tensor_parallel_size=2), DeploymentMode(pipeline_parallel_size=2)),
    )  # fmt: skip
    assert fit(needs(heads=8), two).mode == two.modes[0]
    assert fit(needs(heads=9), two).mode == two.modes[1]
    only = two.model_copy(update={"modes": two.modes[:1]})
    assert fit(needs(heads=9), only).reasons == ("its 9 attention heads cannot be spread over 2 cards",)
