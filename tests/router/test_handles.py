"""What the router needs of Ray that Ray's documents do not promise."""

import asyncio
from typing import Any

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from app.router.handles import is_assigned, unit_handle


async def test_rays_own_response_tells_when_a_unit_has_taken_the_call() -> None:
    metadata: Any = None
    taken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    response: DeploymentResponse[None] = DeploymentResponse(taken, metadata, False)
    assert not is_assigned(response)
    taken.set_result(None)
    assert is_assigned(response)


def test_where_ray_does_not_tell_a_unit_may_be_at_work_on_it() -> None:
    assert is_assigned(object())


async def test_a_handle_is_nobody_elses_and_can_be_shut_down() -> None:
    one, other = unit_handle("ep-1.r-r1"), unit_handle("ep-1.r-r1")
    assert isinstance(one, DeploymentHandle)
    assert one is not other
    assert (one.deployment_name, one.app_name) == ("unit", "ep-1.r-r1")
    await one.shutdown_async()
