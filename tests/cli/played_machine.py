"""A machine with a platform that is played by a few small answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "mu-" + "k" * 43
RAY_TOKEN = "ray-token"
ENDPOINTS = [
    {
        "id": f"ep-{n}", "name": f"name-{n}", "model": "m", "machine_type": "cpu-small", "state": "healthy",
        "reason": "[x]", "units": {"running": 1, "target": 1},
    }
    for n in range(3)
]  # fmt: skip
DEPLOYED = {
    "proxy_location": "HeadOnly",
    "http_options": {"host": "127.0.0.1", "port": 8001},
    "applications": {
        "control_plane": {
            "status": "RUNNING",
            "deployed_app_config": {
                "name": "control_plane",
                "import_path": "app.main:control_plane",
                "args": {
                    "endpoints": [
                        {"name": "name-0", "model": "m", "max_model_len": 2048},
                        {"name": "name-1", "model": "m"},
                    ]
                },
            },
        },
        "ep-0.r-1": {"status": "RUNNING", "deployed_app_config": None},
    },
}
"""What Serve says of itself: the endpoints of its config, and applications that did not come from a config."""


class Machine(ThreadingHTTPServer):
    """A platform and the Serve it runs on: is alive, lists endpoints in pages of two, takes one new config."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.deployed: dict[str, Any] | None = None
        self.fault: str | None = None
        self.asked = threading.Event()
        self.ended = threading.Event()

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """With the models of the config that was deployed last."""
        plane = self.deployed["applications"][0] if self.deployed else {"args": {"endpoints": []}}
        models = {endpoint["name"]: endpoint["model"] for endpoint in plane["args"]["endpoints"]}
        return [endpoint | {"model": models.get(str(endpoint["name"]), "m")} for endpoint in ENDPOINTS]


class Answers(BaseHTTPRequestHandler):
    """One request to the Machine."""

    server: Machine

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif url.path == "/api/serve/applications/":
            self._answer(200 if self.headers["authorization"] == f"Bearer {RAY_TOKEN}" else 401, DEPLOYED)
        elif self.headers["authorization"] != f"Bearer {KEY}":
            self._answer(401, {"error": {"message": "This API key is not valid."}})
        elif self.server.fault == "silent":
            self.server.asked.set()
            self.server.ended.wait(60)
        elif self.server.fault == "closes":
            self.close_connection = True
        elif self.server.fault == "stranger":
            self._answer(200, ["welcome"])
        else:
            query = parse_qs(url.query)
            start, size = int(query.get("page_token", ["0"])[0]), int(query.get("page_size", ["2"])[0])
            token = str(start + size) if start + size < len(ENDPOINTS) else None
            endpoints = [e | {"generation": 1, "observed_generation": 1} for e in self.server.endpoints]
            if self.server.fault == "broken":
                endpoints[0] |= {"state": "abnormal", "reason": "a file is missing"}
            self._answer(200, {"data": endpoints[start : start + size], "next_page_token": token})

    def do_POST(self) -> None:
        model = self._body()["model"]
        self._answer(200, {"choices": [{"message": {"content": f"I am {model}."}}]})

    def do_PUT(self) -> None:
        self.server.deployed = self._body()
        self._answer(200, {})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass
