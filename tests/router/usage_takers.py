"""A control plane that takes usage, and routers that are killed while they have some."""

import os

from app.core.usage import Account, Sums, UsageBatch
from app.router.usage_spool import UsageSpool


class ControlPlane:
    """Takes each stretch of a spool once. It may be away, or its answers may be lost."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.sums: dict[Account, Sums] = {}
        self.asked = 0
        self.away = False
        self.answers_lost = 0

    async def usage(self, batch: str) -> int:
        self.asked += 1
        if self.away:
            raise ConnectionError
        parsed = UsageBatch.model_validate_json(batch)
        if parsed.from_bytes == self.taken.get(parsed.spool, 0) < parsed.to_bytes:
            self.taken[parsed.spool] = parsed.to_bytes
            for row in parsed.rows:
                account = Account(row.workspace, row.key_id, row.endpoint_id)
                self.sums[account] = self.sums.get(account, Sums()).plus(row)
        if self.answers_lost:
            self.answers_lost -= 1
            raise TimeoutError
        return self.taken.get(parsed.spool, 0)

    @property
    def requests(self) -> int:
        return sum(sums.requests for sums in self.sums.values())

    @property
    def partial(self) -> int:
        return sum(sums.partial_requests for sums in self.sums.values())


def kill(spool: UsageSpool) -> None:
    """As kill -9 does: locks are gone, and nothing is tidied up."""
    for file in spool.files:
        os.close(file._descriptor)
