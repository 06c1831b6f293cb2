"""A folder that counts what is read from it."""

from threading import Lock

from app.store.folders import Folder, FolderFile


class CountedFolder:
    """Another folder, and the bytes read from it, from several threads."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = Lock()
        self.read_bytes = 0

    def files(self) -> list[FolderFile]:
        return self._folder.files()

    def read(self, file: FolderFile, start: int = 0, length: int | None = None) -> bytes:
        data = self._folder.read(file, start, length)
        with self._lock:
            self.read_bytes += len(data)
        return data
