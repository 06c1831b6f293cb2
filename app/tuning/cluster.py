"""The Ray that trains: the cluster that RAY_ADDRESS names, or one on this machine that ends with this process."""

import os
import socket

import ray
from ray._private import ray_constants

from app.core.errors import BadRequest, Unavailable
from app.tuning.crew import Crew

CONNECT_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 128 << 20
"""Ray's shared memory, through which next to nothing goes."""


def connect(crew: Crew) -> None:
    """Have a Ray for these workers; at once where there is one already.

    Processes of Ray jobs find RAY_ADDRESS in their environment. Where it is missing, whatever else may run here is left
    alone. Raises Unavailable for a cluster that does not answer, BadRequest for more cards than this machine has.
    """
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        _knock(address)
        ray.init(address=address)
        return
    # Ray would swap 127.0.0.1 for an address of the machine's, which may lead nowhere, and listen on every interface.
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        _node_ip_address="127.0.0.1",
        num_cpus=max(os.cpu_count() or 1, round(crew.workers * crew.cpus + 0.5)),
        resources={name: amount * crew.workers for name, amount in crew.resources.items()},
        labels=crew.labels or None,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    cards = ray.cluster_resources().get("GPU", 0.0)
    if cards < crew.workers * crew.cards:
        ray.shutdown()
        raise BadRequest(
            f"machine_type and instances ask for {crew.workers * crew.cards:g} cards, and this machine has {cards:g}; "
            "name a machine type that it has, or submit the job to a cluster with `ray job submit`.",
            "machine_type",
        )


def is_one_node() -> bool:
    """Whether workers can be nowhere but where this process is, as far as Ray knows."""
    return len([node for node in ray.nodes() if node["Alive"]]) == 1


def _knock(address: str) -> None:
    """Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():  # "auto", or of Ray's client
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise Unavailable(
            f"No Ray answers at {address}, as RAY_ADDRESS says ({error.strerror or error}). Start it, or leave "
            "RAY_ADDRESS out: then this machine trains by itself."
        ) from None
