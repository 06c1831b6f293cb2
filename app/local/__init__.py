"""The whole platform on one machine, for `modelunit up` and `down`."""


class StartFailed(Exception):
    """The platform could not start; the message says why and what to do."""
