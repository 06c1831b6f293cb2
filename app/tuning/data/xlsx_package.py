"""The parts of an .xlsx file, read as streams: no part, however it was made, takes more memory or time than is borne.

Libraries that read sheets hold the table of texts, or all of a sheet, in memory and trust what the archive says of
itself; here nothing is held, document types (which make entity bombs) are refused and all sizes are bounded.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import NoReturn
from xml.parsers import expat

from app.tuning.data.problems import Wrong

MAX_EXPANDED_BYTES = 4 << 30
"""Of all parts that are read, each time they are."""
MAX_RATIO = 200
"""Expanded to stored bytes; sheets reach 30 or so."""
_FREE_BYTES = 16 << 20
"""Below this no ratio is too high."""
_MAX_DIRECTORY_BYTES = 4 << 20
_MAX_TOKEN_BYTES = 1 << 20
_MAX_DEPTH = 64
MAX_ELEMENTS = 32 << 20
_MAX_NAMES = 1000
_READ_BYTES = 64 << 10
_SAVE_AGAIN = "save it again as .xlsx, without a password, or as 'CSV UTF-8'"

_END, _END_SIZE, _LOCATOR, _LOCATOR_SIZE = b"PK\5\6", 22, b"PK\6\7", 20


def damaged(cause: str) -> Wrong:
    """What to raise where a workbook is not as it should be."""
    return Wrong("", f"the workbook {cause}", _SAVE_AGAIN)


class Package:
    """An open .xlsx file. Every method raises Wrong."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._expanded_bytes = 0

    def has(self, part: str) -> bool:
        return part in self._archive.NameToInfo

    def size_bytes(self, part: str) -> int:
        """As the archive has it."""
        return self._archive.NameToInfo[part].file_size

    def chunks(self, part: str) -> Iterator[bytes]:
        """The content of a part."""
        info = self._archive.NameToInfo.get(part)
        if info is None:
            raise damaged("lacks a part")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise damaged("is packed in an unusual way")
        bound = max(_FREE_BYTES, MAX_RATIO * info.compress_size)
        done = 0
        with told_as_damage(), self._archive.open(info) as file:
            while chunk := file.read(_READ_BYTES):
                done += len(chunk)
                self._expanded_bytes += len(chunk)
                if done > bound or self._expanded_bytes > MAX_EXPANDED_BYTES:
                    raise damaged("expands to far more than a table of this size would, as a zip bomb does")
                yield chunk

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """ID -> (kind, part) of what a part refers to; "" is the whole package."""
        folder = dirname(part)
        listed = join(folder, "_rels", f"{part[len(folder) :].lstrip('/')}.rels")
        found: dict[str, tuple[str, str]] = {}

        def start(name: str, attributes: Mapping[str, str]) -> None:
            if name == "Relationship" and len(found) < _MAX_NAMES:
                target = normpath(join("/", folder, attributes.get("Target", ""))).lstrip("/")
                found[attributes.get("Id", "")] = (attributes.get("Type", "").rpartition("/")[2], target)

        if self.has(listed):
            for _ in parse(self.chunks(listed), start):
                pass
        return found


@contextmanager
def open_package(path: Path) -> Iterator[Package]:
    """The parts of a file. Raises Wrong when it is no sound zip archive."""
    _check_directory(path)
    with told_as_damage():
        archive = zipfile.ZipFile(path)
    with archive:
        yield Package(archive)


@contextmanager
def told_as_damage() -> Iterator[None]:
    """What zipfile raises of a damaged archive, as Wrong."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error):
        raise damaged("is damaged") from None
    except RuntimeError:  # NotImplementedError too, which stands for strong encryption and rare compression
        raise damaged("is encrypted") from None


def parse(
    chunks: Iterator[bytes],
    start: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str], None] = lambda name: None,
    text: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Tell of the elements of an XML part by names without prefixes; yields after each chunk. Raises Wrong."""
    parser = expat.ParserCreate()
    names: dict[str, str] = {}
    depth = fed = elements = 0

    def local(name: str) -> str:
        if name not in names:
            if len(names) >= _MAX_NAMES:
                raise damaged("has more names of elements than any table")
            names[name] = name.rpartition(":")[2]
        return names[name]

    def started(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if depth > _MAX_DEPTH:
            raise damaged("is nested too deeply")
        if elements > MAX_ELEMENTS:
            raise damaged("has far more elements than a table")
        start(local(name), {local(key): value for key, value in attributes.items()} if attributes else attributes)

    def ended(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(local(name))

    def doctype(*_: object) -> NoReturn:
        raise damaged("has a document type, in which entity bombs hide")

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        for chunk in chunks:
            parser.Parse(chunk)
            fed += len(chunk)
            if fed - parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
                raise damaged("has a tag without end")
            yield
        parser.Parse(b"", True)
    except expat.ExpatError:
        raise damaged("is damaged: its XML is not well-formed") from None
    yield


def _check_directory(path: Path) -> None:
    """The archive's list of parts is small: zipfile reads it all into memory."""
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - _END_SIZE - 0xFFFF - _LOCATOR_SIZE))
        tail = file.read()
    # Where zipfile looks, and in its order.
    at = len(tail) - _END_SIZE
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
        at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise damaged("is damaged or cut short")
    if tail[max(0, at - _LOCATOR_SIZE) : at].startswith(_LOCATOR):
        raise damaged("is packed in an unusual way")
    (directory_bytes,) = struct.unpack_from("<L", tail, at + 12)
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise damaged("has far more parts than a table")
