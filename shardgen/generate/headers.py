"""Sizes of photos in px, from their headers."""

from collections.abc import Iterator, Sequence

from shardgen.pairs.source import read_ahead
from shardgen.planning.sources import Source
from srshards.errors import PhotoError
from srshards.format import Address
from srshards.imaging.photo import upright_size

Size = tuple[int, int]  # height, width


class Headers:
    """The sizes of the photos read so far, so that none is read twice during the planning of a run."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Size | None] = {}

    def sizes(self, root: Address, photos: Sequence[Source]) -> Iterator[Size | None]:
        """Yield the upright (height, width) of each photo in `root`; None for one that cannot be read."""
        folder = str(root)
        unknown = [photo for photo in photos if (folder, photo.path) not in self._known]
        readers = read_ahead([(root, photo) for photo in unknown])
        for photo, read in zip(unknown, readers, strict=True):
            try:
                self._known[folder, photo.path] = upright_size(read())
            except PhotoError:
                self._known[folder, photo.path] = None
        return (self._known[folder, photo.path] for photo in photos)
