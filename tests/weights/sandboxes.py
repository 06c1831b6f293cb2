"""Functions run in the sandbox with small limits. They run in a child, and know nothing but their arguments."""

from typing import Any

import pytest

from app.weights.sandbox import SandboxFailed, run

MIB = 1 << 20


def attempt(function: Any, *arguments: object, **limits: Any) -> Any:
    return run(function, *arguments, **{"memory_bytes": 64 * MIB, "time_s": 20.0, **limits})


def failure(function: Any, *arguments: object, **limits: Any) -> SandboxFailed:
    with pytest.raises(SandboxFailed) as caught:
        attempt(function, *arguments, **limits)
    return caught.value
