"""One shard: samples go in, a tar and its index come out, whole or not at all, here or in a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srshards.format import ShardRecord
from srshards.shards.shard_writer import TarWriter
from srshards.shards.tar_index import dump_index
from srshards.storage.files import Buffer, HashedFile, write_atomically
from srshards.storage.store import upload

if TYPE_CHECKING:
    from upath import UPath


class ShardWriter:
    """Writes `folder/name.tar` and `folder/name.idx`."""

    def __init__(self, folder: Path, name: str, split: str) -> None:
        self._folder, self._name, self._split = folder, name, split
        self._file = HashedFile(folder / f"{name}.tar")
        self._tar = TarWriter(self._file.write)

    @property
    def num_samples(self) -> int:
        return len(self._tar.index)

    def add(self, key: str, members: Sequence[tuple[str, Sequence[Buffer]]]) -> int:
        """Append a sample: (extension, content in pieces) for each member. Returns the bytes that it takes."""
        return self._tar.add(key, members)

    def commit(self) -> ShardRecord | None:
        """Put tar and index in their places. None, and no files, when the shard got no sample."""
        if not self.num_samples:
            self._file.abort()
            return None
        self._tar.end()
        sha256 = self._file.commit()
        write_atomically(self._folder / f"{self._name}.idx", dump_index(self._tar.index))
        return ShardRecord(self._name, self._split, self.num_samples, self._tar.size, sha256)

    def abort(self) -> None:
        self._file.abort()


class UploadingShardWriter(ShardWriter):
    """Writes the shard's tar and index to `scratch`, an empty folder of its own, and sends them to `folder`.

    Stores have no rename, but an object that was sent in one piece or in parts appears whole or not at all. One that is
    there without the other is no shard: the done marker comes after both, and it is the caller who writes it.
    """

    def __init__(self, scratch: Path, folder: "UPath", name: str, split: str) -> None:
        super().__init__(scratch, name, split)
        self._scratch, self._remote_folder = scratch, folder

    def commit(self) -> ShardRecord | None:
        """Send tar and index. StoreError when the store does not take them."""
        record = super().commit()
        if record:
            for name in (f"{record.name}.tar", f"{record.name}.idx"):
                upload(self._scratch / name, self._remote_folder / name)
                (self._scratch / name).unlink()
        return record
