"""Closes a door that Ray Serve 2.60 opens: each replica listens on every interface for gRPC calls whose arguments it
unpickles. With token authentication it asks callers for Ray's token; a port that answers strangers is one too many
all the same. Handles use Ray's own transport here, so nobody ever needs it.
"""

from typing import Any

from ray.serve._private import replica


def keep_grpc_on_loopback() -> None:
    """Call in a replica's constructor: Serve starts the server after it. A cluster test looks at the sockets."""
    add_port = replica.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = add_loopback_port
