"""What code may expect of a place for files is the same for a disk and for a store."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srshards.format import Address
from srshards.storage.base import PIECE_BYTES, Found, Skipped
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
def place(request: pytest.FixtureRequest, tmp_path: Path, scratch: Path) -> Iterator[Address]:
    if request.param == "disk":
        yield tmp_path / "place"
        return
    address: Any = parse_address(f"memory://{tmp_path.name}/place")
    yield address
    address.fs.store.clear()


def in_store(tmp_path: Path) -> Address:
    return parse_address(f"memory://{tmp_path.name}/place")


def test_files_are_read_as_they_were_written(place: Address) -> None:
    for content in (b"first", b"0123456789"):
        write_bytes(place / "folder" / "file", content)
    file = place / "folder" / "file"
    assert read_bytes(file) == read_bytes(file, 10) == storage_of(file).read_large(file, 10) == b"0123456789"
    assert read_range(file, 3, 4) == b"3456" and read_range(file, 8, 4) == b"89"
    assert storage_of(file).prefetch(file, 3, 4) in (None, b"3456")
    assert file_size(file) == 10 and is_folder(place / "folder")


def test_what_is_not_there_is_said_alike(place: Address) -> None:
    nothing = place / "nothing"
    assert (file_size(nothing), is_folder(nothing), list_files(nothing), list_folders(nothing)) == (None, False, {}, [])
    with pytest.raises(FileNotFoundError):
        read_bytes(nothing)
    remove(nothing)
    remove_many(place, ["a", "b"])
    with pytest.raises(FileNotFoundError):
        list(storage_of(place).find_files(nothing, {".jpg"}, Skipped()))


def test_listings_name_what_lies_in_a_folder(place: Address) -> None:
    for name in ("one.jpg", ".hidden", "sub/two.JPG", "sub/deeper/three.jpg", "sub/notes.txt"):
        write_bytes(place / name, name.encode())
    assert list_files(place) == {"one.jpg": 7}
    assert list_folders(place) == ["sub"] and list_folders(place / "sub") == ["deeper"]
    skipped = Skipped()
    found = sorted(storage_of(place).find_files(place, {".jpg"}, skipped))
    assert [(file.path, file.size) for file in found] == [
        ("one.jpg", 7),
        ("sub/deeper/three.jpg", 20),
        ("sub/two.JPG", 11),
    ]
    assert all(isinstance(file, Found) and file.mtime_ns > 0 for file in found)
    assert (skipped.files, skipped.links) == (2, 0)
    remove_many(place / "sub", ["two.JPG", "notes.txt"])
    assert list_files(place / "sub") == {}


def test_a_file_is_no_folder_of_files(place: Address) -> None:
    write_bytes(place / "file", b"x")
    with pytest.raises(NotADirectoryError):
        list(storage_of(place).find_files(place / "file", {".jpg"}, Skipped()))


def test_a_large_file_comes_in_pieces_and_whole_or_not_at_all(place: Address) -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 256) + b"rest"
    write_bytes(place / "large", content)
    assert [len(piece) for piece in pieces(place / "large", len(content))] == [PIECE_BYTES, 4]
    assert b"".join(pieces(place / "large", len(content))) == content
    with pytest.raises(StoreError, match=r"large: expected 8,388,613 bytes, but it ends after 8,388,612"):
        list(pieces(place / "large", len(content) + 1))


def test_files_are_made_where_there_is_room_and_then_put_in_their_places(place: Address, scratch: Path) -> None:
    storage = storage_of(place)
    storage.ensure_writable(place)
    with storage.staging(place) as staging:
        (staging / "made").write_bytes(b"made")
        storage.publish(staging / "made", place / "made")
    assert read_bytes(place / "made") == b"made" and list_files(place) == {"made": 4}
    assert not [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"]


def test_results_come_in_order_and_one_at_a_time_from_a_disk(place: Address) -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        return number * number

    results = storage_of(place).map(ask, iter(range(10)), 4)
    assert next(results) == 0
    assert sorted(asked)[0] == 0 and len(asked) <= (1 if isinstance(place, Path) else 10)
    assert list(results) == [number * number for number in range(1, 10)]


def test_an_error_comes_when_its_turn_does(place: Address) -> None:
    def read(number: int) -> int:
        if number == 1:
            raise ValueError("this one")
        return number

    readers = list(storage_of(place).in_advance(range(3), lambda number: place / str(number), read))
    assert (readers[0](), readers[2]()) == (0, 2)
    with pytest.raises(ValueError, match="this one"):
        readers[1]()


def test_a_free_folder_is_claimed_once(place: Address) -> None:
    assert storage_of(place).claim_folder(place)
    write_bytes(place / "file", b"x")
    assert not storage_of(place).claim_folder(place)


def test_a_lock_lies_where_locks_die_with_their_owner(place: Address, scratch: Path) -> None:
    path = storage_of(place).lock_path(place, ".x.lock")
    assert path.parent == (place if isinstance(place, Path) else scratch / f"shardgen-{os.getuid()}")
    assert path == storage_of(place).lock_path(parse_address(str(place) + "/"), ".x.lock")
    assert path != storage_of(place).lock_path(place / "other", ".x.lock")


def test_machines_that_share_a_disk_see_a_file_while_a_run_lasts(place: Address) -> None:
    storage_of(place).ensure_writable(place)
    with storage_of(place).presence(place) as mark:
        assert mark is None if not isinstance(place, Path) else mark.parent == place and mark.exists()
    assert mark is None or not mark.exists()


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / ".train-000000.tar.1.abcd.tmp").touch()
    (tmp_path / "mine.tmp").touch()
    storage_of(tmp_path).remove_unfinished([tmp_path, tmp_path / "nowhere"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a//b", "a part of it is empty, `.` or `..`"),
        ("a/../b", "a part of it is empty, `.` or `..`"),
        ("s3://other/b", "its name"),
        ("a?versionId=1", "would be read as another address"),
    ],
)
def test_a_name_that_a_store_takes_for_another_is_refused(path: str, message: str, tmp_path: Path) -> None:
    place = in_store(tmp_path)
    with pytest.raises(ValueError, match=message):
        storage_of(place).join(place, path)
    assert storage_of(place).join(place, "a/b") == place / "a" / "b"
    assert storage_of(tmp_path).join(tmp_path, "a/b") == tmp_path / "a" / "b"


def test_what_has_to_be_a_file_of_this_machine_is_refused_elsewhere(tmp_path: Path) -> None:
    assert local_path(tmp_path) == tmp_path
    with pytest.raises(AddressError, match=r"^memory://.*place is in an object store; expected a local path$"):
        local_path(in_store(tmp_path))
