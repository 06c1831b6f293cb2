"""Which precisions vLLM serves on which kind of accelerator, as far as that is certain."""

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
    "SmoothQuant-W8A8": (75, 999, "Turing or newer, such as T4, A100 or H100"),
    "AWQ-W4A16": (75, 999, "Turing or newer, such as T4, A100 or H100"),
    "W8A8_FP8": (89, 999, "Ada, Hopper or newer, such as L4, L40S or H100"),
    "W4A8": (90, 90, "Hopper, such as H100 or H200"),
}
"""Precision -> the first and the last compute capability that serves it, and both in words; the rest goes anywhere."""


def precision_problem(
    precision: Precision, accelerator: str | None, cards: int, scaled_by: str | None = None
) -> str | None:
    """Why this precision cannot be served there, or None; of cards of an unknown kind nothing is said.

    `accelerator` is Ray's name, None for a CPU (`cards` 0) or for any card; `scaled_by`: what of the weights has one
    scale ("tensor", "channel", "group" or "block"), None where that is not known.
    """
    if not cards:
        if precision == "W8A8_FP8" and scaled_by not in (None, "block"):
            blocks = "a CPU serves it in blocks only"
            return f"precision W8A8_FP8 with one scale per {scaled_by} needs an accelerator; {blocks}"
        return None
    capability = COMPUTE_CAPABILITY.get(accelerator or "")
    if capability is None or precision not in _NEEDS:
        return None
    first, last, words = _NEEDS[precision]
    if first <= capability <= last:
        return None
    return f"precision {precision} needs an accelerator of {words}; this one has {accelerator}"
