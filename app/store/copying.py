"""Moving the parts of many files at once, each file hashed in order, with one part per thread in memory."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from app.store.folders import Folder, FolderFile, SourceChanged
from app.store.object_store import ObjectStore, PartUpload, StoreUnavailable

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
"""S3's limit; a file that would have more gets larger parts, and takes memory accordingly."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0

T = TypeVar("T")


class Nowhere:
    """A PartUpload for a file that is only hashed: it holds every part, so nothing is ever sent."""

    def holds(self, number: int, data: bytes) -> bool:
        return True

    def send(self, number: int, data: bytes) -> None:
        pass

    def finish(self) -> None:
        pass


class Compared(Nowhere):
    """An object that an earlier process may have finished: it is read, and never written."""

    def __init__(self, store: ObjectStore, name: str, part_bytes: int) -> None:
        self._store = store
        self._name = name
        self._part_bytes = part_bytes
        self.differs = False

    def holds(self, number: int, data: bytes) -> bool:
        if not self.differs:
            self.differs = self._store.read(self._name, number * self._part_bytes, len(data)) != data
        return True


class Written(Nowhere):
    """An object of one part."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    def holds(self, number: int, data: bytes) -> bool:
        return False

    def send(self, number: int, data: bytes) -> None:
        self._store.write(self._name, data)


class FileCopy:
    """One file on its way."""

    def __init__(self, file: FolderFile, part_bytes: int, open_target: Callable[[int], PartUpload]) -> None:
        """`open_target` is told the size of the parts, in bytes."""
        self.file = file
        self.part_bytes = max(part_bytes, -(-file.size_bytes // MAX_PARTS))
        self.parts = max(1, -(-file.size_bytes // self.part_bytes))
        self.sha256 = hashlib.sha256()
        self.target: PartUpload | None = None
        self._open_target = open_target
        self._opening = threading.Lock()
        # What follows is guarded by the condition of the Copying.
        self.left = self.parts
        self.hashed = 0
        self.unhashed: dict[int, bytes] = {}
        self.hashing = False

    def open(self) -> PartUpload:
        """Its target, opened by whoever needs it first."""
        with self._opening:
            if self.target is None:
                self.target = self._open_target(self.part_bytes)
            return self.target

    @property
    def differs(self) -> bool:
        """Whether it was compared with what is there, and that is another content."""
        return isinstance(self.target, Compared) and self.target.differs


class Copying:
    """Threads that move parts of a folder's files."""

    def __init__(
        self,
        folder: Folder,
        *,
        concurrency: int,
        patience_s: float,
        on_part: Callable[[FileCopy, int], None],
        on_file: Callable[[FileCopy], None],
    ) -> None:
        """`patience_s`: how long the failures of one call are waited out when they may pass.

        `on_part(copy, size_bytes)` and `on_file(copy)` are called from the threads; what they raise ends it all.
        """
        self._folder = folder
        self._concurrency = concurrency
        self._patience_s = patience_s
        self._on_part = on_part
        self._on_file = on_file
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def run(self, copies: Sequence[FileCopy]) -> None:
        """Move all of the files, or raise the first failure once every thread has ended."""
        self._todo = iter([(copy, number) for copy in copies for number in range(copy.parts)])
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="copying") as threads:
            try:
                wait([threads.submit(self._work) for _ in range(self._concurrency)])
            except BaseException as failure:
                self._fail(failure)
                raise
        if self._failure:
            raise self._failure

    def patiently(self, call: Callable[[], T]) -> T:
        """The call's result; a failure that may pass is met by calling again until the patience ends."""
        deadline: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except StoreUnavailable:
                now = time.monotonic()
                deadline = deadline or now + self._patience_s
                if now >= deadline or self._stopped.is_set():
                    raise
            self._stopped.wait(min(pause_s * random.uniform(0.5, 1), deadline - now))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._stopped.set()
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._failure or (part := next(self._todo, None)) is None:
                        return
                self._move(*part)
        except BaseException as failure:
            self._fail(failure)

    def _move(self, copy: FileCopy, number: int) -> None:
        """One part, from here to there. A function of its own, so that its bytes go when it ends."""
        file, start = copy.file, number * copy.part_bytes
        length = min(copy.part_bytes, file.size_bytes - start)
        data = self.patiently(lambda: self._folder.read(file, start, length))
        if len(data) != length:
            raise SourceChanged(file.name)
        self._hash(copy, number, data)
        target = self.patiently(copy.open)
        if not self.patiently(lambda: target.holds(number, data)):
            self.patiently(lambda: target.send(number, data))
        with self._changed:
            # Parts are begun in order, so the one that is waited for is under way in another thread.
            self._changed.wait_for(lambda: copy.hashed > number or self._failure)
            if self._failure:
                return
            copy.left -= 1
            last = copy.left == 0
        self._on_part(copy, length)
        if last:
            self.patiently(target.finish)
            self._on_file(copy)

    def _hash(self, copy: FileCopy, number: int, data: bytes) -> None:
        """Hand a part in; one thread at a time hashes all that is there in order."""
        with self._changed:
            copy.unhashed[number] = data
            if copy.hashing:
                return
            copy.hashing = True
        while True:
            with self._changed:
                following = copy.unhashed.pop(copy.hashed, None)
                if following is None:
                    copy.hashing = False
                    return
            copy.sha256.update(following)
            with self._changed:
                copy.hashed += 1
                self._changed.notify_all()
