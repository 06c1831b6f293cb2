"""What the control plane says of a real cluster's nodes."""

import pytest

from tests.cluster.conftest import Platform

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_room_for_units_is_counted_on_the_nodes(platform: Platform) -> None:
    types = {one["id"]: one for one in platform.http.get("/platform/v1/machine-types").json()["data"]}
    running = sum(endpoint["units"]["running"] for endpoint in platform.endpoints())
    small = types["cpu-small"]["cluster"]
    assert small["units"] > 0
    assert small["free"] <= small["units"] - running  # nodes have other things to carry too
    assert types["gpu-1"]["cluster"] == {"units": 0, "free": 0}
