"""The storage interface behaves the same for local disks and for object stores."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srshards.format import Address
from srshards.storage.base import PIECE_BYTES, ListedFile, Skipped
from srshards.storage.store import (
    AddressError,
    StoreError,
    file_size,
    is_folder,
    list_files,
    list_folders,
    local_path,
    parse_address,
    pieces,
    read_bytes,
    read_range,
    remove,
    remove_many,
    storage_of,
    write_bytes,
)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(params=["disk", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, scratch: Path) -> Iterator[Address]:
    if request.param == "disk":
        yield tmp_path / "root"
        return
    address: Any = parse_address(f"memory://{tmp_path.name}/root")
    yield address
    address.fs.store.clear()


def in_store(tmp_path: Path) -> Address:
    return parse_address(f"memory://{tmp_path.name}/root")


def test_files_round_trip(root: Address) -> None:
    for content in (b"first", b"0123456789"):
        write_bytes(root / "folder" / "file", content)
    file = root / "folder" / "file"
    assert read_bytes(file) == read_bytes(file, 10) == storage_of(file).read_large(file, 10) == b"0123456789"
    assert read_range(file, 3, 4) == b"3456" and read_range(file, 8, 4) == b"89"
    assert storage_of(file).prefetch(file, 3, 4) in (None, b"3456")
    assert file_size(file) == 10 and is_folder(root / "folder")


def test_missing_files_and_folders(root: Address) -> None:
    missing = root / "missing"
    assert (file_size(missing), is_folder(missing), list_files(missing), list_folders(missing)) == (None, False, {}, [])
    with pytest.raises(FileNotFoundError):
        read_bytes(missing)
    remove(missing)
    remove_many(root, ["a", "b"])
    with pytest.raises(FileNotFoundError):
        list(storage_of(root).find_files(missing, {".jpg"}, Skipped()))


def test_listings(root: Address) -> None:
    for name in ("one.jpg", ".hidden", "sub/two.JPG", "sub/deeper/three.jpg", "sub/notes.txt"):
        write_bytes(root / name, name.encode())
    assert list_files(root) == {"one.jpg": 7}
    assert list_folders(root) == ["sub"] and list_folders(root / "sub") == ["deeper"]
    skipped = Skipped()
    found = sorted(storage_of(root).find_files(root, {".jpg"}, skipped))
    assert [(file.path, file.size) for file in found] == [
        ("one.jpg", 7),
        ("sub/deeper/three.jpg", 20),
        ("sub/two.JPG", 11),
    ]
    assert all(isinstance(file, ListedFile) and file.mtime_ns > 0 for file in found)
    assert (skipped.files, skipped.links) == (2, 0)
    remove_many(root / "sub", ["two.JPG", "notes.txt"])
    assert list_files(root / "sub") == {}


def test_find_files_rejects_files(root: Address) -> None:
    write_bytes(root / "file", b"x")
    with pytest.raises(NotADirectoryError):
        list(storage_of(root).find_files(root / "file", {".jpg"}, Skipped()))


def test_large_files_are_read_in_pieces_and_completely(root: Address) -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 256) + b"rest"
    write_bytes(root / "large", content)
    assert [len(piece) for piece in pieces(root / "large", len(content))] == [PIECE_BYTES, 4]
    assert b"".join(pieces(root / "large", len(content))) == content
    with pytest.raises(StoreError, match=r"large: expected 8,388,613 bytes, but it ends after 8,388,612"):
        list(pieces(root / "large", len(content) + 1))


def test_files_are_staged_and_published(root: Address, scratch: Path) -> None:
    storage = storage_of(root)
    storage.ensure_writable(root)
    with storage.staging(root) as staging:
        (staging / "file").write_bytes(b"data")
        storage.publish(staging / "file", root / "file")
    assert read_bytes(root / "file") == b"data" and list_files(root) == {"file": 4}
    assert not [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"]


def test_map_returns_results_in_order_and_is_lazy_on_disks(root: Address) -> None:
    calls: list[int] = []

    def square(number: int) -> int:
        calls.append(number)
        return number * number

    results = storage_of(root).map(square, iter(range(10)), 4)
    assert next(results) == 0
    assert sorted(calls)[0] == 0 and len(calls) <= (1 if isinstance(root, Path) else 10)
    assert list(results) == [number * number for number in range(1, 10)]


def test_errors_of_prefetched_reads_are_raised_in_order(root: Address) -> None:
    def read(number: int) -> int:
        if number == 1:
            raise ValueError("this one")
        return number

    readers = list(storage_of(root).read_ahead(range(3), lambda number: root / str(number), read))
    assert (readers[0](), readers[2]()) == (0, 2)
    with pytest.raises(ValueError, match="this one"):
        readers[1]()


def test_folders_can_be_claimed_only_while_empty(root: Address) -> None:
    assert storage_of(root).claim_folder(root)
    write_bytes(root / "file", b"x")
    assert not storage_of(root).claim_folder(root)


def test_lock_files_are_local(root: Address, scratch: Path) -> None:
    path = storage_of(root).lock_path(root, ".x.lock")
    assert path.parent == (root if isinstance(root, Path) else scratch / f"shardgen-{os.getuid()}")
    assert path == storage_of(root).lock_path(parse_address(str(root) + "/"), ".x.lock")
    assert path != storage_of(root).lock_path(root / "other", ".x.lock")


def test_presence_file_exists_during_a_run_on_disks(root: Address) -> None:
    storage_of(root).ensure_writable(root)
    with storage_of(root).presence_file(root) as mark:
        assert mark is None if not isinstance(root, Path) else mark.parent == root and mark.exists()
    assert mark is None or not mark.exists()


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".train-000000.tar.1.abcd.tmp").touch()
    (tmp_path / "other.tmp").touch()
    storage_of(tmp_path).remove_unfinished([tmp_path, tmp_path / "nowhere"])
    assert [path.name for path in tmp_path.iterdir()] == ["other.tmp"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a//b", "a part of it is empty, `.` or `..`"),
        ("a/../b", "a part of it is empty, `.` or `..`"),
        ("s3://other/b", "its name"),
        ("a?versionId=1", "would be read as another address"),
    ],
)
def test_names_that_stores_would_misread_are_rejected(path: str, message: str, tmp_path: Path) -> None:
    root = in_store(tmp_path)
    with pytest.raises(ValueError, match=message):
        storage_of(root).join(root, path)
    assert storage_of(root).join(root, "a/b") == root / "a" / "b"
    assert storage_of(tmp_path).join(tmp_path, "a/b") == tmp_path / "a" / "b"


def test_local_path_rejects_stores(tmp_path: Path) -> None:
    assert local_path(tmp_path) == tmp_path
    with pytest.raises(AddressError, match=r"^memory://.*root is in an object store; expected a local path$"):
        local_path(in_store(tmp_path))
