"""Where long trials leave their results: HOME/soak.json, one entry for each trial, and HOME/soak, their pictures."""

import json
from collections.abc import Mapping

from app.settings import Settings


def record(trial: str, figures: Mapping[str, object]) -> None:
    """Put a trial's figures beside those of the others, in place of its last ones."""
    home = Settings.from_environ().home
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "soak.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {trial: dict(figures)}, indent=2))


def keep(name: str, text: str) -> None:
    """Put a trial's picture into HOME/soak."""
    folder = Settings.from_environ().home / "soak"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / name).write_text(text)
