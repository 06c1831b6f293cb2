"""One request on its way through a unit: the unary handle call and the stream of its answer, as one thing."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from app.core.errors import InternalError, PlatformError, QueueFull, Unavailable, UnitGone, UnitLost
from app.router.handles import is_assigned
from app.router.hold import Hold
from app.router.stream import Stream, TokenListener
from app.router.usage import MeteredRequest

END_GRACE_S = 10.0
"""How long the last bytes may take once the unit says that the answer is complete."""
ATTEMPTS = 2
RETRY_PAUSE_S = 0.25
GONE_WITHIN_S = 0.5
MAX_TRIES = 40
"""Ten seconds: several times what Serve takes to notice that a replica has died."""

log = logging.getLogger("ray.serve")

_watches: set[asyncio.Task[None]] = set()
"""The event loop itself holds tasks only weakly, and these outlive their requests."""


@dataclass(frozen=True)
class Deadlines:
    """How long a request may wait, phase by phase, in seconds."""

    first_token_s: float = 300.0
    between_tokens_s: float = 120.0
    answer_s: float = 3600.0
    """Of an answer that is not streamed: it comes whole."""


class Call:
    """An answer being made. Iterate over `parts()`; `close()` in any case."""

    def __init__(self, listener: TokenListener, deadlines: Deadlines, metered: MeteredRequest):
        self._listener = listener
        self._deadlines = deadlines
        self._metered = metered
        self._stream: Stream
        self._response: Any = None
        self._watch: asyncio.Task[None] | None = None
        self._first = b""

    async def start(self, hold: Hold, request_id: str, body: bytes) -> None:
        """Wait for the first bytes of the answer, as long as `hold` does; one that is not streamed comes whole.

        A unit that is lost before it sent anything costs one more attempt on another, never more, since it may be the
        request that ends units. One that was gone already costs nothing but a pause, until Serve has noticed it too.
        Raises PlatformError: what the engine refused, a deadline, no unit.
        """
        lost = 0
        for _ in range(MAX_TRIES):
            self._stream = stream = self._listener.open()
            self._watch = self._response = None
            try:
                hold.begin()
                while hold.target is None:
                    await hold.wait(stream)
                self._response = hold.call(stream.token, self._listener.address, request_id, body)
                self._watch = asyncio.create_task(_report_loss(self._response, stream))
                _watches.add(self._watch)
                self._watch.add_done_callback(_watches.discard)
                stream.on_give_up = self._watch.cancel
                while not await hold.wait(stream):
                    pass
                self._first = await stream.read(END_GRACE_S, "the first token")  # it is there
                self._metered.begun(stream)
                return
            except UnitLost as error:
                lost += not isinstance(error, UnitGone)
                if lost == ATTEMPTS:
                    raise
                self._listener.close(stream)  # nobody has had anything of it, and the request counts once
                self._cancel()
                log.warning("request %s lost its unit before the first byte; trying again", request_id)
                await asyncio.sleep(RETRY_PAUSE_S)
        raise Unavailable("This endpoint lost its units; others are starting.")

    @property
    def status(self) -> int:
        return self._stream.status

    @property
    def content_type(self) -> str:
        return self._stream.content_type or "application/json"

    async def parts(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they come; ends only when the answer is complete. Raises like `start`."""
        part = self._first
        while part:
            yield part
            part = await self._stream.read(self._deadlines.between_tokens_s, "the next token")

    def close(self) -> None:
        """Stop the work if it still goes on, and count what it took. Never waits."""
        if self._response is None:  # no unit was called
            self._listener.close(self._stream)
            self._metered.ended(self._stream, taken=False)
        else:
            taken = is_assigned(self._response)
            self._listener.settle(self._stream, partial(self._metered.ended, taken=taken))
        self._cancel()

    def _cancel(self) -> None:
        # Once the answer is complete the unit says so by itself, and there is nothing to cancel.
        if self._watch and not self._stream.complete:
            self._watch.cancel()


async def _report_loss(response: Any, stream: Stream) -> None:
    """Watch the handle call: it tells of a unit that died or has no place, which the stream alone cannot."""
    loop = asyncio.get_running_loop()
    sent_at = loop.time()
    try:
        await response
        loop.call_later(END_GRACE_S, stream.fail, UnitLost("The model unit ended the answer without its last part."))
    except (asyncio.CancelledError, RequestCancelledError, TaskCancelledError):
        response.cancel()
        stream.fail(UnitLost("The request was cancelled."))
    except PlatformError as error:
        # Ray hands over a class of its own that is both ours and its own: make it plain again.
        plain = next((kind for kind in (UnitGone, UnitLost) if isinstance(error, kind)), None)
        stream.fail(plain(error.message) if plain else error)
    except RayActorError:  # at once: the unit was dead already; later: it died with this request in it
        kind = UnitGone if loop.time() - sent_at < GONE_WITHIN_S else UnitLost
        stream.fail(kind("The model unit stopped working before the answer was complete."))
    except BackPressureError:
        stream.fail(QueueFull("Every unit of this endpoint is busy and its queue is full."))
    except DeploymentUnavailableError:
        stream.fail(Unavailable("This endpoint has no unit that can start."))
    except Exception:
        log.exception("a unit call failed")
        stream.fail(InternalError("The unit failed."))
