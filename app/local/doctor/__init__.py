"""`modelunit doctor`: looks at all that the platform needs here, and says what to do where something is wrong."""

from collections.abc import Callable

from app.local.doctor.health import Health, fail
from app.local.doctor.machine import machine_healths
from app.local.doctor.platform import (
    admin_key_health,
    port_health,
    ray_health,
    registry_health,
    secret_health,
    store_health,
)
from app.local.running import running
from app.settings import Settings


def examine(settings: Settings) -> list[Health]:
    """How everything is. Changes nothing; in the object store it writes one small object and removes it."""
    found = running(settings)
    token = settings.home / "ray.token"
    looks: list[tuple[str, Callable[[], list[Health]]]] = [
        ("machine", lambda: machine_healths(settings.home, running=found is not None)),
        ("port", lambda: [port_health(settings, found)]),
        ("Ray", lambda: [ray_health(settings, found)]),
        ("registry", lambda: [registry_health(settings)]),
        ("object store", lambda: [store_health(settings)]),
        ("admin key", lambda: [admin_key_health(settings)]),
        ("Ray's token", lambda: [secret_health("Ray's token", token)]),
    ]
    return [health for name, look in looks for health in _looked(name, look)]


def _looked(name: str, look: Callable[[], list[Health]]) -> list[Health]:
    """A look that fails in a way nobody thought of must not hide the others."""
    try:
        return look()
    except Exception as error:
        return [fail(name, f"could not be looked at: {type(error).__name__}: {error}", "see what this machine lacks")]
