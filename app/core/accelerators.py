"""Which precisions vLLM serves on which kind of card, as far as that is certain; the rest is in servable.py."""

from app.core.specs import Precision

COMPUTE_CAPABILITY = {
    "K80": 37, "P100": 60, "P4": 61, "V100": 70, "T4": 75,
    "A100": 80, "A100-40G": 80, "A100-80G": 80, "A30": 80, "A10": 86, "A10G": 86, "A40": 86,
    "L4": 89, "L20": 89, "L40": 89, "L40S": 89,
    "H100": 90, "H200": 90, "H20": 90, "H800": 90, "GH200": 90,
    "B200": 100, "GB200": 100, "B300": 103, "GB300": 103, "RTX-PRO-6000": 120,
}  # fmt: skip
"""NVIDIA's compute capability times ten, by Ray's names of accelerators."""
_NEEDS: dict[Precision, tuple[int, int, str]] = {
    "SmoothQuant-W8A8": (75, 99, "Turing to Hopper, such as T4, A100 or H100"),  # no int8 kernels from Blackwell on
    "AWQ-W4A16": (75, 999, "Turing or newer, such as T4, A100 or H100"),
    "W8A8_FP8": (89, 999, "Ada, Hopper or newer, such as L4, L40S or H100"),
    "W4A8": (90, 90, "Hopper, such as H100 or H200"),
}
"""Precision -> the first and the last compute capability that serves it, and both in words; the rest goes anywhere."""


def precision_problem(precision: Precision, accelerator: str | None, cards: int) -> str | None:
    """Why this precision cannot be served on cards of this kind, or None; of an unknown kind nothing is said.

    `accelerator` is Ray's name, None for a CPU (`cards` 0), of which nothing is said either, or for any card. What
    else decides is in servable.py.
    """
    capability = COMPUTE_CAPABILITY.get(accelerator or "")
    if not cards or capability is None or precision not in _NEEDS:
        return None
    first, last, words = _NEEDS[precision]
    if first <= capability <= last:
        return None
    return f"precision {precision} needs an accelerator of {words}; this one has {accelerator}"
