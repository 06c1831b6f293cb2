"""Serve's handles to units, as this router needs them."""

from typing import Any

from ray.serve.handle import DeploymentHandle


def unit_handle(application: str) -> Any:
    """A handle of a revision's units that belongs to the caller, who shuts it down in the end.

    One from serve.get_deployment_handle is kept there, and reports to the controller, for as long as the process lives.
    """
    return DeploymentHandle("unit", application)


def is_assigned(response: Any) -> bool:
    """Whether a unit has taken this call; else it waits in the handle, and loses nothing when it goes elsewhere.

    Relies on Ray 2.60: `_replica_result_future` is done once a replica has accepted the call, or none ever will.
    Where it is not there the call counts as assigned, for a unit may be at work on it.
    """
    future = getattr(response, "_replica_result_future", None)
    return future is None or bool(future.done())
