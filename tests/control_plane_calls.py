"""The control plane as its callers reach it through Serve, played by tests."""

import asyncio
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from app import control_plane_handle


class Response:
    """An answer under way, as Serve hands it out: whoever stops waiting for it has not cancelled it yet."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self.answer).__await__()

    def cancel(self) -> None:
        self.cancelled = True


class PlayedControlPlane:
    """Notes what it is asked, and answers the methods that it was told answers of; the others it lets wait."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.responses: list[Response] = []
        self.asked = asyncio.Semaphore(0)
        self._answers = answers

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(method, arguments))

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Response:
        self.calls.append((method, *arguments))
        self.responses.append(Response())
        if method in self._answers:
            self.responses[-1].answer.set_result(self._answers[method])
        self.asked.release()
        return self.responses[-1]

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on Serve finds this one."""

        def handle(deployment: str, application: str, *, _check_exists: bool) -> PlayedControlPlane:
            assert (deployment, application, _check_exists) == ("control_plane", "control_plane", False)
            return self

        monkeypatch.setattr(control_plane_handle, "serve", SimpleNamespace(get_deployment_handle=handle))
