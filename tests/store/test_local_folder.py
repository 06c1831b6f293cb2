import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store.folders import MAX_FILES, FolderFile, RefusedEntry, SourceChanged, fingerprint
from app.store.local_folder import MAX_DEPTH, LocalFolder
from app.store.object_store import StoreError
from tests.store.imports import put

FILES = {"b.bin": b"0123456789", "a": b"", "sub/c": b"xyz", "sub-1": b"1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder; its path has no link in it."""
    return put(tmp_path.resolve() / "weights", FILES)


def only(folder: LocalFolder, name: str) -> FolderFile:
    return next(file for file in folder.files() if file.name == name)


def test_files_are_listed_by_name_without_hidden_ones(root: Path) -> None:
    put(root, {".git/config": b"x", ".env": b"x", "sub/.cache/y": b"x"})
    (root / ".link").symlink_to("/etc")
    assert [(file.name, file.size_bytes) for file in LocalFolder(root).files()] == [
        ("a", 0), ("b.bin", 10), ("sub-1", 1), ("sub/c", 3),
    ]  # fmt: skip


def test_ranges(root: Path) -> None:
    folder = LocalFolder(root)
    file = only(folder, "b.bin")
    data = FILES["b.bin"]
    for start, length in [(0, None), (3, 4), (3, None), (9, 5), (10, 1), (99, None), (0, 0), (0, 1 << 50)]:
        assert folder.read(file, start, length) == data[start:][:length], (start, length)
    assert folder.read(only(folder, "sub/c")) == b"xyz"
    with pytest.raises(ValueError, match="negative"):
        folder.read(file, -1)


def link(path: Path) -> None:
    path.symlink_to("b.bin")


def folder_link(path: Path) -> None:
    path.symlink_to("sub")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(link, "a link"), (folder_link, "a link"), (os.mkfifo, "a pipe"), (listening, "a socket")],
)
def test_what_is_not_a_plain_file_is_refused(root: Path, make: Callable[[Path], None], kind: str) -> None:
    make(root / "sub" / "odd")
    with pytest.raises(RefusedEntry, match=f"^'sub/odd' is {kind}$"):
        LocalFolder(root).files()


@pytest.mark.parametrize("name", [b"back\\slash", b"new\nline", b"\xff"])
def test_names_that_are_not_plain_are_refused(root: Path, name: bytes) -> None:
    Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(b"")
    with pytest.raises(RefusedEntry, match="is not a plain name"):
        LocalFolder(root).files()


def test_a_device_is_refused() -> None:
    with pytest.raises(RefusedEntry):
        LocalFolder(Path("/dev")).files()


def test_no_part_of_the_path_may_be_a_link(root: Path, tmp_path: Path) -> None:
    file = only(LocalFolder(root), "a")
    (tmp_path / "alias").symlink_to(root.parent)
    through = LocalFolder(tmp_path.resolve() / "alias" / "weights")
    with pytest.raises(RefusedEntry, match="'alias' is a link"):
        through.files()
    with pytest.raises(SourceChanged):
        through.read(file)


def test_a_folder_that_is_not_there(root: Path) -> None:
    with pytest.raises(StoreError, match=r"^source: there is no folder 'absent'$"):
        LocalFolder(root / "absent").files()
    with pytest.raises(StoreError, match=r"^source: 'b\.bin' is not a folder$"):
        LocalFolder(root / "b.bin").files()


def removed(path: Path) -> None:
    path.unlink()


def rewritten(path: Path) -> None:
    path.write_bytes(b"9876543210")
    os.utime(path, (0, 0))


def cut(path: Path) -> None:
    path.write_bytes(b"012345678")


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("a")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [removed, rewritten, cut, linked, piped, made_a_folder])
def test_a_replaced_file_is_noticed(root: Path, change: Callable[[Path], None]) -> None:
    folder = LocalFolder(root)
    file = only(folder, "b.bin")
    change(root / "b.bin")
    with pytest.raises(SourceChanged, match=r"^'b\.bin' was replaced or removed meanwhile$"):
        folder.read(file)


def test_a_folder_that_became_a_link_is_noticed(root: Path) -> None:
    folder = LocalFolder(root)
    file = only(folder, "sub/c")
    (root / "sub").rename(root / "moved")
    (root / "sub").symlink_to("moved")
    with pytest.raises(SourceChanged):
        folder.read(file)


def test_a_name_that_was_made_up_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for name in ("../secret", "/etc/passwd", "sub/../../secret"):
        with pytest.raises(RefusedEntry):
            LocalFolder(root).read(FolderFile(name, 6, ""))


def test_depth_is_bounded(root: Path) -> None:
    put(root, {"/".join("d" * MAX_DEPTH) + "/x": b""})
    assert len(LocalFolder(root).files()) == len(FILES) + 1
    put(root, {"/".join("d" * (MAX_DEPTH + 1)) + "/x": b""})
    with pytest.raises(RefusedEntry, match=f"more than {MAX_DEPTH} folders deep"):
        LocalFolder(root).files()


def test_the_number_of_entries_is_bounded(root: Path) -> None:
    (root / ".hidden").touch()
    for number in range(MAX_FILES - len(FILES) - 2):  # there are `sub` and `.hidden`, too
        (root / f"{number}").touch()
    assert len(LocalFolder(root).files()) == MAX_FILES - 2
    (root / "one-more").touch()
    with pytest.raises(RefusedEntry, match=r"a folder of more than 10,000 files"):
        LocalFolder(root).files()


def test_descriptors_are_given_back(root: Path) -> None:
    folder = LocalFolder(root)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        folder.read(only(folder, "sub/c"))
    (root / "sub" / "link").symlink_to("c")
    for _ in range(3):
        with pytest.raises(RefusedEntry):
            folder.files()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fingerprint_is_about_the_listing(root: Path) -> None:
    folder = LocalFolder(root)
    before = fingerprint(folder)
    assert fingerprint(LocalFolder(root)) == before
    put(root, {".hidden": b""})
    assert fingerprint(folder) == before
    put(root, {"new": b""})
    assert fingerprint(folder) != before
