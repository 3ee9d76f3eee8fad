"""Read the chunks of PNG files, and remove large metadata that would prevent decoding.

Pillow keeps all text of a PNG in memory and rejects the file when a compressed text or colour profile exceeds 1 MB, or
all text together 64 MB. Editing histories, embedded workflows and printer profiles can be that large.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_COMPRESSED_BYTES = 1 << 20  # after decompression: Pillow's limit
_MAX_PLAIN_BYTES = 8 << 20  # six texts of this size stay below 64 MB
_MAX_PROFILE_BYTES = 64 << 20
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
# Text that may contain the orientation: XMP, and EXIF as ImageMagick wrote it before PNG had a chunk for it.
_ORIENTATION_KEYWORDS = (b"XML:com.adobe.xmp", b"Raw profile type exif")


class _Chunk(NamedTuple):
    """A chunk's type and content, and the start and end of the complete chunk in the file."""

    kind: bytes
    content: memoryview
    start: int
    end: int


def bits_per_channel(data: bytes) -> int:
    return next((chunk.content[8] for chunk in _chunks(data) if chunk.kind == b"IHDR"), 8)


def with_small_metadata(data: bytes) -> bytes:
    """Return the PNG without irrelevant text and without metadata that is too large, empty or damaged."""
    seen: set[tuple[bytes, bytes]] = set()
    return _without(data, lambda chunk: _is_removable(chunk, seen))


def pixels_only(data: bytes) -> bytes:
    """Return the PNG with its pixel chunks only: OpenCV rejects other chunks of more than 8 MB."""
    return _without(data, lambda chunk: chunk.kind not in _PIXEL_CHUNKS)


def _without(data: bytes, is_dropped: Callable[[_Chunk], bool]) -> bytes:
    dropped = [chunk for chunk in _chunks(data) if is_dropped(chunk)]
    if not dropped:
        return data
    kept_from, kept_to = [0, *(chunk.end for chunk in dropped)], [*(chunk.start for chunk in dropped), len(data)]
    return b"".join(memoryview(data)[start:end] for start, end in zip(kept_from, kept_to, strict=True))


def icc_profile(data: bytes) -> bytes | None:
    """Return the embedded ICC profile: None if there is none, empty if it is damaged or larger than 64 MB."""
    for chunk in _chunks(data):
        if chunk.kind == b"iCCP":
            return _inflated(_compressed_part(chunk.content, b"iCCP"), _MAX_PROFILE_BYTES) or b""
    return None


def _chunks(data: bytes) -> Iterator[_Chunk]:
    view, start = memoryview(data), len(SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if end > len(data):
            return
        yield _Chunk(bytes(view[start + 4 : start + 8]), view[start + 8 : end - 4], start, end)
        start = end


def _is_removable(chunk: _Chunk, seen: set[tuple[bytes, bytes]]) -> bool:
    """Return whether to remove a chunk. Relevant text is kept once; `seen` collects its types and keywords."""
    if chunk.kind in _TEXT:
        keyword, _, text = bytes(chunk.content[:80]).partition(b"\0")
        if keyword not in _ORIENTATION_KEYWORDS or (chunk.kind, keyword) in seen:
            return True
        seen.add((chunk.kind, keyword))
        if chunk.kind == b"tEXt" or (chunk.kind == b"iTXt" and text[:1] != b"\1"):
            return len(chunk.content) > _MAX_PLAIN_BYTES
    elif chunk.kind != b"iCCP":
        return False
    return not _inflated(_compressed_part(chunk.content, chunk.kind), _MAX_COMPRESSED_BYTES)


def _compressed_part(content: memoryview, kind: bytes) -> bytes:
    """Return what follows the keyword and compression method; in iTXt also language and translated keyword."""
    _, _, rest = bytes(content).partition(b"\0")
    return rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else rest[1:]


def _inflated(compressed: bytes, limit: int) -> bytes | None:
    """Decompress; None when the data is damaged or larger than the limit."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(compressed, limit)
    except zlib.error:
        return None
    return None if decompressor.unconsumed_tail else content
