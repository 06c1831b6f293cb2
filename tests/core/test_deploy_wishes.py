"""The three machine fields, and names made from addresses."""

import pytest

from app.core.deploy_wishes import MachineWish, machine_wish, name_from, wished_machine
from app.core.errors import InvalidField
from app.core.specs import MACHINE_TYPES, MachineType

H100 = MachineType(name="h100-8", accelerator="H100", accelerator_count=8)
MACHINES = MACHINE_TYPES | {"h100-8": H100}


def test_all_three_or_none():
    assert machine_wish(None, None, None) is None
    assert machine_wish("cpu-small", "NONE", 0) == MachineWish("cpu-small", "NONE", 0)
    given = ("h100-8", "H100", 8)
    for known in range(1, 7):
        some = [value if known & 1 << place else None for place, value in enumerate(given)]
        with pytest.raises(InvalidField, match="machine_spec lacks"):
            machine_wish(*some)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["H100", "h100", "NVIDIA_H100", "NVIDIA_H100_80GB", "nvidia-h100-80gb"])
def test_other_words_for_a_card(kind: str):
    assert wished_machine(MachineWish("h100-8", kind, 8), MACHINES) == H100


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (MachineWish("h200-8", "H100", 8), "machineType"),
        (MachineWish("h100-8", "H1000", 8), "acceleratorType"),
        (MachineWish("h100-8", "NVIDIA_H100_MEGA", 8), "acceleratorType"),
        (MachineWish("h100-8", "NONE", 8), "acceleratorType"),
        (MachineWish("h100-8", "H100", 4), "acceleratorCount"),
        (MachineWish("cpu-small", "H100", 0), "acceleratorType"),
        (MachineWish("cpu-small", "NONE", 1), "acceleratorCount"),
    ],
)
def test_what_names_no_machine_is_refused(wish: MachineWish, param: str):
    with pytest.raises(InvalidField) as caught:
        wished_machine(wish, MACHINES)
    assert caught.value.param == f"machine_spec.{param}"
    came = {"machineType": wish.machine_type, "acceleratorType": wish.accelerator_type}
    assert str(came.get(param, wish.accelerator_count)) in caught.value.message


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://bucket/models/Qwen2.5-7B-Instruct", "Qwen2-5-7B-Instruct"),
        ("file:///models/mine/", "mine"),
        ("s3://bucket/7b", "model-7b"),
        ("s3://bucket/千问", "model"),
        ("s3://bucket/" + "x" * 99, "x" * 40),
    ],
)
def test_names(address: str, name: str):
    assert name_from(address, "model") == name
