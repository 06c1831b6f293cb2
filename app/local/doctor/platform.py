"""How the platform's own things are: port, Ray, registry, object store, secrets."""

import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from app.core.keys import well_formed
from app.local import StartFailed, serve_config
from app.local.doctor.health import Health, fail, ok, warn
from app.local.ports import check_usable
from app.local.running import Running
from app.settings import Settings
from app.store.objects import open_store
from app.store.schema import find_schema

AGAIN = "'make stop', then 'make serve'"
PROBE_BYTES = b"modelunit doctor"


def port_health(settings: Settings, found: Running | None) -> Health:
    """Whether callers reach the platform, or could."""
    if found is not None:
        return ok("port", f"the platform answers at {found.base_url}")
    try:
        check_usable(settings.http_host, settings.http_port)
    except StartFailed as problem:
        problem_text, _, advice = str(problem).partition("; ")
        return fail("port", problem_text, advice)
    return ok("port", f"{settings.http_host}:{settings.http_port} is free")


def ray_health(settings: Settings, found: Running | None) -> Health:
    """Whether Ray is there, and what Serve says of the applications."""
    try:
        installed = f"Ray {version('ray')}"
    except PackageNotFoundError:
        return fail("Ray", "not installed", "remove .venv and run make again")
    if found is None:
        if (settings.run_dir / "run_id").exists():
            return fail("Ray", f"{installed}; what was started does not answer", AGAIN)
        return ok("Ray", f"{installed}, not running; 'make serve' starts it")
    try:
        apps = serve_config.details(found.dashboard_url, found.ray_token)["applications"]
        states = {name: str(app["status"]) for name, app in apps.items()}
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        return fail("Ray", f"{installed}, does not answer ({type(error).__name__})", AGAIN)
    ill = {name: state for name, state in states.items() if state not in ("RUNNING", "DELETING")}
    if ill:
        told = ", ".join(f"{name} {state}" for name, state in sorted(ill.items()))
        state = fail if any(name in ("router", "control_plane") for name in ill) else warn
        return state("Ray", f"{installed}, running; {told}", "'modelunit endpoints' says why; so does Ray's dashboard")
    return ok("Ray", f"{installed}, running with {len(states)} applications")


def registry_health(settings: Settings) -> Health:
    """Whether the database answers, and has tables that this program knows."""
    name = "registry"
    kind = settings.database.partition(":")[0]
    try:
        schema = find_schema(settings.database)
    except ValueError as error:
        return fail(name, str(error), "correct MODELUNIT_DATABASE_URL")
    except (SQLAlchemyError, OSError) as error:
        told = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
        return fail(name, f"{kind}: {told}", "start the database, or correct MODELUNIT_DATABASE_URL")
    if schema is None or schema.found is None:
        return ok(name, f"{kind}, empty; the first start makes its tables")
    if not schema.known:
        return fail(
            name, f"{kind} at version {schema.found}", f"a newer modelunit made it; this one knows {schema.newest}"
        )
    if schema.found != schema.newest:
        return warn(name, f"{kind} at version {schema.found}", f"the next start migrates it to {schema.newest}")
    return ok(name, f"{kind} at version {schema.found}")


def store_health(settings: Settings) -> Health:
    """Whether objects can be written, read and removed."""
    name = "object store"
    kind = settings.objects.partition(":")[0]
    probe = f"doctor/{secrets.token_hex(8)}"
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = open_store(settings)
        store.write(probe, PROBE_BYTES)
        try:
            same = store.read(probe) == PROBE_BYTES
        finally:
            store.delete(probe)
    except ValueError as error:
        return fail(name, str(error), "correct MODELUNIT_OBJECT_STORE")
    except OSError as error:
        told = " ".join(str(error).split())
        return fail(name, f"{kind}: {told}", "allow it, or correct MODELUNIT_OBJECT_STORE and the credentials")
    if not same:
        return fail(name, f"{kind}: what was written is not what is read", "this store cannot be used")
    return ok(name, f"{kind}, written, read and removed")


def secret_health(name: str, file: Path) -> Health:
    """Whether a file with a secret is its owner's only."""
    try:
        mode = file.stat().st_mode & 0o777
    except FileNotFoundError:
        return ok(name, "not there yet; the first start makes it")
    except OSError as error:
        return fail(name, f"{file}: {error.strerror}", "let this user read it")
    if mode & 0o077:
        return fail(name, f"{file} has mode {mode:04o}", f"others can read it: chmod 600 {file} and renew it")
    return ok(name, f"{file}, mode {mode:04o}")


def admin_key_health(settings: Settings) -> Health:
    """Whether the first key can be one, and is kept well."""
    name, file = "admin key", settings.home / "admin.key"
    if settings.admin_key is not None:
        if well_formed(settings.admin_key):
            return ok(name, "MODELUNIT_ADMIN_KEY")
        return fail(name, "MODELUNIT_ADMIN_KEY is no key", "'mu-' and 43 characters of A-Z, a-z, 0-9, '-' and '_'")
    health = secret_health(name, file)
    if health.state == "ok" and file.exists() and not well_formed(file.read_text().strip()):
        return fail(name, f"{file} holds no key", "remove it: the next start makes one")
    return health
