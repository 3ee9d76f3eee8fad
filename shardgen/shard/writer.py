"""Write one shard, a tar and its index, atomically to a local folder or an object store."""

from collections.abc import Sequence
from pathlib import Path

from srshards.format import Address, ShardRecord
from srshards.shards.tar_index import dump_index
from srshards.shards.tar_writer import TarWriter
from srshards.storage.files import Buffer, HashedFile, write_atomically
from srshards.storage.store import storage_of


class ShardWriter:
    """Writes `name.tar` and `name.idx` in `staging` and publishes them in `folder`; see `Storage.staging`.

    The caller writes the done marker after both, because one file alone is not a valid shard.
    """

    def __init__(self, folder: Address, staging: Path, name: str, split: str) -> None:
        self._folder, self._staging, self._name, self._split = folder, staging, name, split
        self._file = HashedFile(staging / f"{name}.tar")
        self._tar = TarWriter(self._file.write)

    @property
    def num_samples(self) -> int:
        return len(self._tar.index)

    def add(self, key: str, members: Sequence[tuple[str, Sequence[Buffer]]]) -> int:
        """Append a sample, given (extension, pieces of content) of each member. Return its size in bytes."""
        return self._tar.add(key, members)

    def commit(self) -> ShardRecord | None:
        """Publish tar and index and return the shard's record; publish nothing and return None if it has no samples.

        OSError when they cannot be written, StoreError when the store does not accept them.
        """
        if not self.num_samples:
            self._file.abort()
            return None
        self._tar.end()
        sha256 = self._file.commit()
        write_atomically(self._staging / f"{self._name}.idx", dump_index(self._tar.index))
        for name in (f"{self._name}.tar", f"{self._name}.idx"):
            storage_of(self._folder).publish(self._staging / name, self._folder / name)
        return ShardRecord(self._name, self._split, self.num_samples, self._tar.size, sha256)

    def abort(self) -> None:
        self._file.abort()
