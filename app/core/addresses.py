"""By which address callers reach the platform."""

import re

_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_EVERYWHERE = {"0.0.0.0", "::"}


def base_url(host: str | None, scheme: str | None, listens_on: tuple[str, int]) -> str:
    """Where callers reach the routers: at the host, and by the scheme, that this caller used, else where they listen.

    A host comes from the caller and goes into code and pages: one that does not look like a host counts as none.
    """
    if host is None or not _HOST.fullmatch(host):
        name, port = listens_on
        ours = "127.0.0.1" if name in _EVERYWHERE else name
        return f"http://{f'[{ours}]' if ':' in ours else ours}:{port}"
    return f"{'https' if scheme == 'https' else 'http'}://{host}"
