"""Every error a caller can see: a class with a status and a code; app/web.py renders it, nobody else does.

PlatformError
├── BadRequest 400            ├── TooLarge 413
│   └── InvalidField 400      ├── TooManyRequests 429
├── Unauthorized 401          │   ├── QpsExceeded 429
├── Forbidden 403             │   └── QueueFull 429
├── NotFound 404              ├── InternalError 500
└── Conflict 409              ├── Unavailable 503
    └── NotReady 409          │   ├── Asleep 503
                              │   ├── UnitLost 503
                              │   └── Superseded 503
                              └── DeadlineExceeded 504
"""

import re


class PlatformError(Exception):
    """An expected failure with a message that is safe to show: no prompt, path or secret in it.

    Everything lives in `args`, so that it survives pickling on its way through Ray.
    """

    status = 500
    type = "internal_error"
    code = "internal_error"
    retry_after_s: int | None = None

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ):
        super().__init__(message, param, code)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def param(self) -> str | None:
        """The field that is wrong, in the caller's own spelling."""
        param: str | None = self.args[1]
        return param

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, object]:
        """The JSON body that OpenAI's clients read."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.args[2] or self.code}
        return {"error": error}


class BadRequest(PlatformError):
    status, type, code = 400, "invalid_request_error", "bad_request"


class InvalidField(BadRequest):
    code = "invalid_value"


class Unauthorized(PlatformError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class Forbidden(PlatformError):
    status, type, code = 403, "permission_error", "forbidden"


class NotFound(PlatformError):
    status, type, code = 404, "not_found_error", "not_found"


class Conflict(PlatformError):
    status, type, code = 409, "conflict_error", "conflict"


class NotReady(Conflict):
    """What is asked for is being made: wait for it."""

    code = "not_ready"


class TooLarge(PlatformError):
    status, type, code = 413, "invalid_request_error", "body_too_large"


class TooManyRequests(PlatformError):
    status, type, code = 429, "rate_limit_error", "rate_limited"
    retry_after_s = 1


class QpsExceeded(TooManyRequests):
    """An endpoint takes no more requests a second (S3, table 8-1, gives the type)."""

    type = "ModelArts.4206"


class QueueFull(TooManyRequests):
    """As many requests of an endpoint wait as may."""

    code = "queue_full"
    retry_after_s = 5


class InternalError(PlatformError):
    pass


class Unavailable(PlatformError):
    status, type, code = 503, "unavailable_error", "unavailable"
    retry_after_s = 5


class Asleep(Unavailable):
    """No unit of the endpoint runs, and the caller does not want to wait for one."""

    code = "asleep"
    retry_after_s = 30


class UnitLost(Unavailable):
    """The model unit that held the request is gone; nothing of the answer is known to be complete."""

    code = "unit_lost"


class UnitGone(UnitLost):
    """The model unit was gone before it began with the request."""


class Superseded(Unavailable):
    """Another control plane has taken over: this one cannot write any more, and is about to end."""


class DeadlineExceeded(PlatformError):
    status, type, code = 504, "timeout_error", "deadline_exceeded"


_PATH = re.compile(r"(?<![\w.:/-])/(?:[^\s/'\":,]+/)*([^\s/'\":,]+)")


def without_paths(text: str) -> str:
    """`text` with absolute paths cut to their last part: reasons are shown to callers."""
    return _PATH.sub(r"\1", text)


class EngineStartError(Exception):
    """An engine could not start. The message is the reason an operator sees, on one line.

    Its text travels through Ray Serve's status message between the two marks, which
    `reason_in` takes out again.
    """

    _MARKS = ("<<unit:", ":unit>>")

    def __init__(self, reason: str):
        super().__init__(f"{self._MARKS[0]}{without_paths(' '.join(reason.split()))}{self._MARKS[1]}")

    @classmethod
    def reason_in(cls, text: str) -> str | None:
        """The last marked reason inside a longer text, or None."""
        _, mark, tail = text.rpartition(cls._MARKS[0])
        return tail.partition(cls._MARKS[1])[0] if mark else None
