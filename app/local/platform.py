"""Ray, Serve, the engine host and a demo endpoint on this machine: up, and down again."""

import contextlib
import fcntl
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from app import processes
from app.core.keys import issue_key
from app.local import Say, StartFailed, ray_folder, ray_node, serve_config
from app.local.files import write_private
from app.local.ports import answers, check_usable, free_port
from app.local.running import Running, admin_key, first_chat, forget, record, recorded, running
from app.settings import Settings
from app.unit import engine_host

WAY_OUT = (
    "The platform runs on. Another folder: 'make serve MODEL=DIR'. "
    f"What modelunit comes with: 'modelunit down', then 'modelunit up --config {serve_config.LOCAL}'."
)
"""For a first endpoint that cannot work: it is kept, so that a plain start would come to the same end."""
ROUTER_TIMEOUT_S = 180
ENDPOINT_TIMEOUT_S = 1800
STOP_PATIENCE_S = 10.0
RETURN_PATIENCE_S = 60.0
"""For a router that does not answer now: Serve replaces a lost one within seconds, a busy machine is slow."""


def up(settings: Settings, folder: Path | None, say: Say, config_file: Path | None = None) -> tuple[Running, str]:
    """Start everything, wait until the first endpoint of the config is healthy, and chat with it once.

    Without a `config_file` it is the config that was deployed last. `folder` holds a model to serve there instead of
    the config's own. Returns how to reach the platform, and the answer. Finds a running platform and says so. Raises
    StartFailed; an interrupt or a failure before the platform answers takes down what was started.
    """
    with _alone(settings, say):
        found = running(settings) or _returned(settings, say)
        if found is None:
            config = serve_config.read(settings, config_file)
            found = _start(settings, config, folder, say)
        else:
            config = _join(settings, found, config_file, folder, say)
        with _client(settings, found) as client:
            wanted = serve_config.first_endpoint(config)
            endpoint_id = _wait_for_endpoint(client, found, wanted["name"], wanted["model"] if folder else None, say)
            pids = [process.pid for process in processes.marked(found.run_id)]
            found = found.model_copy(update={"endpoint_id": endpoint_id, "pids": pids})
            record(settings, found)
            return found, _chat(client, endpoint_id)


def down(settings: Settings, say: Say) -> int:
    """Stop what `up` started for this HOME; data stay. Returns how many processes there were."""
    if not settings.home.exists():
        return 0
    with _alone(settings, say):
        return _stop(settings)


def _stop(settings: Settings) -> int:
    run_file = settings.run_dir / "run_id"
    try:
        run_id = run_file.read_text().strip()
    except FileNotFoundError:
        return 0
    count = processes.stop(run_id, STOP_PATIENCE_S)
    ray_folder.remove(settings)
    forget(settings)
    for path in (settings.run_dir / engine_host.SOCKET, run_file):
        path.unlink(missing_ok=True)
    return count


def _start(settings: Settings, config: serve_config.Config, folder: Path | None, say: Say) -> Running:
    _stop(settings)  # what an interrupted start may have left
    check_usable(settings.http_host, settings.http_port)
    run_id = secrets.token_hex(8)
    write_private(settings.run_dir / "run_id", run_id)
    admin_key_file = settings.home / "admin.key"
    if settings.admin_key is None and not admin_key_file.exists():
        write_private(admin_key_file, issue_key() + "\n")
    try:
        say("starting Ray and the engine host")
        proxy_port = free_port()
        proxied = settings.model_copy(update={"serve_proxy_url": f"http://127.0.0.1:{proxy_port}"})
        variables = ray_node.environment(proxied, run_id)
        engine_host.start(settings.run_dir, variables, preload=True)
        ray = ray_node.start(settings, variables, ray_folder.make(settings))
        serve_config.prepare_model(settings, config, folder, say)
        ray.wait()
        found = Running(
            base_url=f"http://{_url_host(settings.http_host)}:{settings.http_port}",
            endpoint_id=None,
            admin_key_file=str(admin_key_file),
            dashboard_url=ray.dashboard_url,
            ray_address=ray.address,
            ray_token_file=variables["RAY_AUTH_TOKEN_PATH"],
            pids=[process.pid for process in processes.marked(run_id)],
            run_id=run_id,
        )
        record(settings, found)
        say("deploying the router and the control plane")
        serve_config.deploy(settings, ray.dashboard_url, found.ray_token, config, proxy_port)
        _wait_for_router(found)
        found = found.model_copy(update={"served": True})
        record(settings, found)
        return found
    except BaseException:
        say("stopping what was started")
        _stop(settings)
        raise


def _returned(settings: Settings, say: Say) -> Running | None:
    """A platform that served and lives, once its router answers again; None: what there is may be stopped.

    Raises StartFailed when it goes on not answering: callers may wait for it, so only a person stops it.
    """
    found = recorded(settings)
    if found is None or not found.served or not processes.marked(found.run_id) or not answers(found.ray_address):
        return None
    say(f"a platform runs here, but does not answer at {found.base_url}; waiting for it")
    deadline = time.monotonic() + RETURN_PATIENCE_S
    while time.monotonic() < deadline:
        if found.answers():
            return found
        time.sleep(0.2)
    raise StartFailed(
        f"a platform runs here, but did not answer at {found.base_url} within {RETURN_PATIENCE_S:.0f} s; "
        "'modelunit doctor' looks at it, 'modelunit down' stops it"
    )


def _join(
    settings: Settings, found: Running, config_file: Path | None, folder: Path | None, say: Say
) -> serve_config.Config:
    """What `up` does on a platform that runs: its first endpoint serves `folder`, and everything else stays."""
    say(f"the platform runs already at {found.base_url}")
    if config_file is not None:
        say(f"{config_file} is not deployed: a platform that runs is changed by 'serve deploy'")
    config = serve_config.deployed(found)
    if folder is not None:
        say(f"its endpoint {serve_config.first_endpoint(config)['name']} is to serve {folder.resolve().name}")
        serve_config.prepare_model(settings, config, folder, say)
        serve_config.deploy(settings, found.dashboard_url, found.ray_token, config)
    return config


def _wait_for_router(found: Running) -> None:
    deadline = time.monotonic() + ROUTER_TIMEOUT_S
    with httpx.Client(base_url=found.base_url, timeout=5, trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    return
            if time.monotonic() > deadline:
                problem = serve_config.problems(found.dashboard_url, found.ray_token)
                raise StartFailed(f"the router did not answer within {ROUTER_TIMEOUT_S} s. {problem}")
            time.sleep(0.1)


def _wait_for_endpoint(client: httpx.Client, found: Running, name: str, model: str | None, say: Say) -> str:
    """The ID of the endpoint once it is healthy, and serves `model` if one is given."""
    started = time.monotonic()
    told, known = "", False
    while time.monotonic() - started < ENDPOINT_TIMEOUT_S:
        line = told
        with contextlib.suppress(httpx.TransportError):
            answer = client.get("/platform/v1/endpoints", params={"page_size": 1000})
            if answer.status_code == 401:  # for a moment only, when the routers still have another key
                line = "the platform refuses the admin key"
            listed = answer.json()["data"] if answer.status_code == 200 else []
            for endpoint in (e for e in listed if e["name"] == name and model in (None, e["model"])):
                known = True
                line = f"endpoint {endpoint['id']} is {endpoint['state']}: {endpoint['reason']}".removesuffix(": ")
                if endpoint["state"] == "healthy" and endpoint["generation"] == endpoint["observed_generation"]:
                    return str(endpoint["id"])
                if endpoint["state"] in ("abnormal", "alarm"):
                    raise StartFailed(f"{line}\n{WAY_OUT}")
        if line != told:
            say(line)
        told = line
        if not known and time.monotonic() - started > ROUTER_TIMEOUT_S:
            problem = serve_config.problems(found.dashboard_url, found.ray_token)
            raise StartFailed(
                f"the control plane shows no endpoint {name} after {ROUTER_TIMEOUT_S} s. {told} {problem}"
            )
        time.sleep(0.2)
    raise StartFailed(f"endpoint {name} was not healthy within {ENDPOINT_TIMEOUT_S} s")


def _client(settings: Settings, found: Running) -> httpx.Client:
    """Calls as the admin. Raises StartFailed when there is no key."""
    headers = {"authorization": f"Bearer {admin_key(settings, found)}"}
    return httpx.Client(base_url=found.base_url, headers=headers, timeout=600, trust_env=False)


def _chat(client: httpx.Client, endpoint_id: str) -> str:
    """One short answer. Raises StartFailed with the reason when there is none."""
    answer = client.post("/v1/chat/completions", json=first_chat(endpoint_id))
    if answer.status_code != 200:
        raise StartFailed(f"the endpoint answered {answer.status_code}: {answer.json()['error']['message']}")
    return str(answer.json()["choices"][0]["message"]["content"])


@contextlib.contextmanager
def _alone(settings: Settings, say: Say) -> Iterator[None]:
    for folder in (settings.home, settings.run_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.run_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another start or stop of this platform is under way; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _url_host(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
