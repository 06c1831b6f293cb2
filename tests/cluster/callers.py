"""People who call the platform all the time, and keep what went wrong."""

import threading
import time
from bisect import bisect
from collections.abc import Callable

import httpx


class Callers(threading.Thread):
    """Callers that make a connection each, one after the other, until told to stop."""

    PAUSE_S = 0.02
    """After a call that failed: what is being started again needs the cores too."""

    def __init__(self, call: Callable[[httpx.Client], httpx.Response], base_url: str, key: str):
        super().__init__()
        self._call = call
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {key}", "connection": "close"}
        self._stopped = threading.Event()
        self.answered_at = [time.monotonic()]
        self.failures: list[str] = []
        self.failed_at: list[float] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                with httpx.Client(
                    base_url=self._base_url, headers=self._headers, timeout=30, trust_env=False
                ) as client:
                    answer = self._call(client)
                if answer.status_code == 200:
                    self.answered_at.append(time.monotonic())
                else:
                    self._fail(f"{answer.status_code} {answer.text}")
            except httpx.TransportError as error:
                self._fail(repr(error))

    def _fail(self, how: str) -> None:
        self.failures.append(how)
        self.failed_at.append(time.monotonic())
        self._stopped.wait(self.PAUSE_S)

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)

    @property
    def outages(self) -> int:
        """How often calls began to fail; one lasts until the next answer."""
        return len({bisect(self.answered_at, failed_at) for failed_at in self.failed_at})

    @property
    def longest_gap_s(self) -> float:
        return max(later - earlier for earlier, later in zip(self.answered_at, self.answered_at[1:], strict=False))
