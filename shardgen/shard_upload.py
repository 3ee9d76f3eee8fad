"""A shard that goes into a store: made here, on scratch, and sent when it is whole."""

from pathlib import Path
from typing import TYPE_CHECKING

from shardgen.shard.writer import ShardWriter
from srshards.format import ShardRecord
from srshards.storage.store import upload

if TYPE_CHECKING:
    from upath import UPath


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
