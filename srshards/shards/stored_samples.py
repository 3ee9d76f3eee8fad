"""Find folders of shards, and read the samples of a shard through its index."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from srshards.errors import RunError, UsageError
from srshards.format import (
    MANIFEST_NAME,
    SCALE_FOLDER,
    SHARD_FILE,
    Address,
    Manifest,
    load_manifest,
    shard_of_key,
)
from srshards.imaging import codec
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage
from srshards.shards.advice import SAME_COMMAND, making_commands
from srshards.shards.description import parse_description
from srshards.shards.tar_index import Member, check_samples, load_index
from srshards.storage.output_lock import busy_message
from srshards.storage.store import (
    file_size,
    is_folder,
    link_out_of,
    list_files,
    list_folders,
    read_bytes,
    read_range,
    storage_of,
)

_S = TypeVar("_S")
_T = TypeVar("_T")

_REQUESTS_AT_ONCE = 16


class _NoShardError(UsageError):
    """The folder has no shard of this name."""


def scale_folders(folder: Address) -> list[Address]:
    """Return `folder` itself if it has shards, else its `scale_Nx` folders that do. UsageError when none does."""
    if not is_folder(folder):
        if file_size(folder) is not None:
            raise UsageError(f"{folder} is a file; pass a folder of shards")
        raise UsageError(f"no such folder: {folder}; to create it, run {_making_commands(folder)}")
    if _has_shards(folder):
        return [folder]
    named = [folder / name for name in list_folders(folder) if SCALE_FOLDER.fullmatch(name)]
    found = [path for path in named if _has_shards(path)]
    if not found:
        _refuse_unfinished(folder)
        raise UsageError(
            f"no shards in {folder}: expected {MANIFEST_NAME} and train-000000.tar there, or in {folder}/scale_4x; "
            f"to generate them, run {_making_commands(folder)}"
        )
    return found


def open_manifest(folder: Address) -> Manifest:
    """Load the manifest of one scale's folder. UsageError when there is none, or `folder` contains several scales."""
    inside = scale_folders(folder)
    if inside != [folder]:
        raise UsageError(f"{folder}: expected the folder of one scale; pass {' or '.join(map(str, inside))}")
    refuse_link(folder, MANIFEST_NAME)
    try:
        return load_manifest(folder, read_bytes)
    except FileNotFoundError:
        _refuse_unfinished(folder)
        raise UsageError(
            f"{folder} has no {MANIFEST_NAME}: generation did not finish; run {SAME_COMMAND} again"
        ) from None


def _making_commands(folder: Address) -> str:
    return making_commands(folder.parent if SCALE_FOLDER.fullmatch(folder.name) else folder)


def _refuse_unfinished(folder: Address) -> None:
    """Raise UsageError while a run is still writing the folder."""
    if message := busy_message(folder):
        raise UsageError(message)


def _has_shards(folder: Address) -> bool:
    names = list_files(folder)
    return MANIFEST_NAME in names or any(SHARD_FILE.fullmatch(name) for name in names if name.endswith(".tar"))


@dataclass(frozen=True)
class StoredSample:
    """A sample as its shard's index lists it: key, and members by name (`hr`, `lr`, `lr1`, `up`, `json`)."""

    key: str
    tar: Address
    members: dict[str, Member]
    loaded: bytes | None = None  # the bytes of all members, headers in between included

    @property
    def _start(self) -> int:
        return min(member.offset for member in self.members.values())

    def load(self) -> "StoredSample":
        """Return the sample with all its members fetched in one request. Local samples are not loaded in advance."""
        end = max(member.offset + member.size for member in self.members.values())
        with self._reading():
            loaded = storage_of(self.tar).prefetch(self.tar, self._start, end - self._start)
        return replace(self, loaded=loaded)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # removed since its index was read, or a disk error
            if shortage(error):
                raise
            raise RunError(f"cannot read {self.tar}: {error.strerror or error}") from error

    def read(self, name: str) -> bytes:
        """Return the content of a member. RunError when it is missing or truncated."""
        member = self.members.get(name)
        if member is None:
            raise RunError(f"{self.tar}: sample {self.key} has no {name} member")
        if self.loaded is None:
            with self._reading():
                data = read_range(self.tar, member.offset, member.size)
        else:
            data = self.loaded[member.offset - self._start :][: member.size]
        if len(data) != member.size:
            raise RunError(f"{self.tar} ends inside {member.name}; run `python -m shardgen verify {self.tar.parent}`")
        return data

    def describe(self) -> dict[str, Any]:
        """Return the parsed `json` member: source, class, box, scale, method, and the sampled parameters."""
        return parse_description(self.read("json"), f"{self.tar}: {self.key}.json")

    def image(self, name: str) -> Pixels:
        """Return one decoded image: `hr`, `lr`, `lr1`, `up`."""
        data = self.read(name)
        try:
            return codec.decode(self.members[name].extension.rpartition(".")[2], data)
        except RunError as error:
            raise RunError(f"{self.tar}: {self.members[name].name} {error}") from error


def stored_samples(folder: Address, shard: str) -> list[StoredSample]:
    """Return the samples of a shard, in order. UsageError when there is no such shard."""
    tar, index = folder / f"{shard}.tar", folder / f"{shard}.idx"
    num_bytes = file_size(tar)
    if file_size(index) is None or num_bytes is None:
        raise _NoShardError(f"no shard {shard} in {folder}; {folder / MANIFEST_NAME} lists its shards")
    for path in (tar, index):
        refuse_link(folder, path.name)
    samples = load_index(index, read_bytes)
    check_samples(samples, index, len(samples), num_bytes)
    return list(_samples_of_index(tar, samples))


def refuse_link(folder: Address, name: str) -> None:
    """Raise RunError when a file in a folder of shards is a link that points out of it."""
    if wrong := link_out_of(folder, name):
        raise RunError(wrong)


def map_in_order(items: Iterable[_S], action: Callable[[_S], _T], folder: Address) -> Iterator[_T]:
    """Map `action` over the items, in order: one at a time on a disk, with concurrent requests in a store."""
    return storage_of(folder).map(action, items, _REQUESTS_AT_ONCE)


def find_sample(folder: Address, key: str) -> StoredSample:
    """Return the sample with this key. UsageError when the folder has none."""
    shard = shard_of_key(key)
    try:
        samples = stored_samples(folder, shard)
    except _NoShardError as error:
        raise UsageError(f"no sample {key}: {error}") from None
    sample = next((sample for sample in samples if sample.key == key), None)
    if sample is None:
        raise UsageError(
            f"no sample {key} in {folder}; to list the samples of its shard, run "
            f"`python -m shardgen inspect {folder} --shard {shard}`"
        )
    return sample


def _samples_of_index(tar: Address, index: list[list[Member]]) -> Iterator[StoredSample]:
    for members in index:
        key = members[0].name.partition(".")[0]
        yield StoredSample(key, tar, {member.extension.partition(".")[0]: member for member in members})
