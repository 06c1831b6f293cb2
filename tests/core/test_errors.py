import pickle
import traceback

import pytest

from app.core import errors
from app.core.errors import EngineStartError, InvalidField, PlatformError, TooManyRequests, Unavailable, UnitLost

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlatformError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling_with_everything(kind: type[PlatformError]) -> None:
    error = kind("what happened", "field", "special_code")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.body(), copy.status, copy.retry_after_s) == (error.body(), error.status, error.retry_after_s)
    assert str(copy) == "what happened"


def test_an_error_that_was_changed_survives_pickling_changed() -> None:
    error = PlatformError("refused")
    error.status = 405
    assert pickle.loads(pickle.dumps(error)).status == 405


def test_the_body_is_what_openai_clients_read() -> None:
    assert InvalidField("n is 11.", "n").body() == {
        "error": {"message": "n is 11.", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
    }


def test_what_can_be_tried_again_says_when() -> None:
    assert all(kind.retry_after_s for kind in (Unavailable, UnitLost, TooManyRequests))


def start_failure_text() -> str:
    """What Serve's status message looks like: the error pickled, raised again, caused and printed twice."""
    try:
        try:
            raise pickle.loads(pickle.dumps(EngineStartError("not enough memory:\n  5 GiB wanted")))
        except EngineStartError as error:
            raise RuntimeError(f"The deployment failed to start 1 times: {error!r}") from error
    except RuntimeError:
        return f"Deployment failed, {traceback.format_exc()} and retrying."


def test_the_reason_is_found_in_a_nested_traceback_on_one_line() -> None:
    text = start_failure_text()
    assert text.count("not enough memory") > 1
    assert EngineStartError.reason_in(text) == "not enough memory: 5 GiB wanted"


def test_of_several_reasons_the_last_counts() -> None:
    assert EngineStartError.reason_in(f"{EngineStartError('first')} then {EngineStartError('second')} end") == "second"


def test_a_text_without_a_reason_has_none() -> None:
    assert EngineStartError.reason_in("Traceback: out of memory") is None
