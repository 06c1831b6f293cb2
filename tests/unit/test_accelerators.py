"""Cards, by a driver's library that is played by an object."""

import ctypes
from typing import Any

import pytest

from app.unit.accelerators import Accelerators, CardUse

NOT_SUPPORTED = 3


class Nvml:
    """Two cards; the second is a part of a card, which does not tell how busy it is."""

    names = {"0": 0, "1": 1, "GPU-aa": 0, "MIG-bb": 1}
    busy = (37, None)
    used = (5 << 30, 6 << 30)

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        return self._find(str(index.value), handle)

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        return self._find(name.decode(), handle)

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, rates: Any) -> int:
        busy = self.busy[(handle.value or 0) - 1]
        if busy is None:
            return NOT_SUPPORTED
        rates._obj.gpu = busy
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.used = self.used[(handle.value or 0) - 1]
        return 0

    def _find(self, name: str, handle: Any) -> int:
        if name not in self.names:
            return NOT_SUPPORTED
        handle._obj.value = self.names[name] + 1
        return 0


@pytest.mark.parametrize(
    ("visible", "uses"),
    [
        ("0", [CardUse(37.0, 5 << 30)]),
        ("0,1", [CardUse(37.0, 5 << 30), CardUse(None, 6 << 30)]),
        ("MIG-bb, GPU-aa", [CardUse(None, 6 << 30), CardUse(37.0, 5 << 30)]),
        ("7", []),
        ("-1", []),
        ("", []),
    ],
)
def test_the_cards_that_a_unit_was_given_are_read(visible: str, uses: list[CardUse]) -> None:
    assert list(Accelerators(visible, Nvml()).read()) == uses


def test_where_there_is_no_driver_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.unit.accelerators.LIBRARY", "no-such-library.so")
    assert list(Accelerators("0").read()) == []
