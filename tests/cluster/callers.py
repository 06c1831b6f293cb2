"""People who call the platform all the time, and keep what went wrong."""

import threading
import time
from collections.abc import Callable

import httpx


class Callers(threading.Thread):
    """Callers that make a connection each, one after the other, until told to stop."""

    def __init__(self, call: Callable[[httpx.Client], httpx.Response], base_url: str, key: str):
        super().__init__()
        self._call = call
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {key}", "connection": "close"}
        self._stopped = threading.Event()
        self.answered_at = [time.monotonic()]
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                with httpx.Client(
                    base_url=self._base_url, headers=self._headers, timeout=30, trust_env=False
                ) as client:
                    answer = self._call(client)
                if answer.status_code != 200:
                    self.failures.append(f"{answer.status_code} {answer.text}")
                    continue
                self.answered_at.append(time.monotonic())
            except httpx.TransportError as error:
                self.failures.append(repr(error))

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)

    @property
    def longest_gap_s(self) -> float:
        return max(later - earlier for earlier, later in zip(self.answered_at, self.answered_at[1:], strict=False))
