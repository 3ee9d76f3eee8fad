"""An independent reader of shards, written from docs/reference/formats.md alone, as one would in another language.

It uses only bytes, integers and JSON: no tarfile, no NumPy, no code of this project.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 512
NPY_HEADER_BYTES = 128


def images_of(settings: dict[str, Any], split: str) -> list[str]:
    """Return the images of a sample, in order."""
    num_extra = settings["variants"] - 1 if split == "train" else 0
    return ["hr", "lr", *(f"lr{number}" for number in range(1, num_extra + 1)), *(["up"] if settings["up"] else [])]


def edge(settings: dict[str, Any], image: str) -> int:
    """Return the edge of an image in px."""
    return settings["hr_size"] // (settings["scale"] if image.startswith("lr") else 1)


def members(tar: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset of the content and size of each member, read from the headers."""
    offset = 0
    while tar[offset]:
        header = tar[offset : offset + BLOCK]
        fields = struct.unpack("100s8s8s8s12s12s8sc100s8s247s", header)
        name, mode, uid, gid, size, mtime, checksum, kind, link, magic, rest = fields
        assert (mode, uid, gid) == (b"0000644\0", b"0000000\0", b"0000000\0")
        assert (mtime, kind, magic) == (b"00000000000\0", b"0", b"ustar\x0000")
        assert not any(link) and not any(rest)
        assert checksum == b"%06o\0 " % (sum(header) - sum(checksum) + 8 * ord(" "))
        content = offset + BLOCK
        length = int(size[:11], 8)
        assert size[11:] == b"\0"
        padding = tar[content + length : content + length + -length % BLOCK]
        assert not any(padding)
        yield name.rstrip(b"\0").decode("ascii"), content, length
        offset = content + length + len(padding)
    assert tar[offset:] == bytes(2 * BLOCK)


def index_lines(samples: list[list[tuple[str, int, int]]]) -> bytes:
    """Return the content of an index, given the members of each sample."""
    lines = [f"v1.2 {len(samples)}"]
    for sample in samples:
        lines.append(" ".join(f"{name.partition('.')[2]} {offset} {size} {name}" for name, offset, size in sample))
    return "".join(line + "\n" for line in lines).encode("ascii")


def npy_pixels(content: bytes, size: int) -> bytes:
    """Return the pixels as RGB bytes, rows from the top."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size}, {size}, 3), }}"
    magic, version, length, header = struct.unpack_from("<6s2sH118s", content)
    assert (magic, version, length) == (b"\x93NUMPY", b"\x01\x00", 118)
    assert header == text.encode("ascii").ljust(117) + b"\n"
    assert len(content) == NPY_HEADER_BYTES + 3 * size * size
    return content[NPY_HEADER_BYTES:]


def extension(settings: dict[str, Any], image: str) -> str:
    """Return the extension of an image's member."""
    codec = settings["codec"]
    return f"{image}.{'npy' if codec == 'tlc' and image.startswith('lr') else codec}"


def read_folder(folder: Path) -> Iterator[tuple[str, dict[str, bytes], dict[str, Any]]]:
    """Yield the key, the images by name (pixels for npy, else encoded) and the JSON record of every sample."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["format_version"] == 3
    settings = manifest["settings"]
    for shard in manifest["shards"]:
        name, split = shard["name"], shard["split"]
        tar = (folder / f"{name}.tar").read_bytes()
        assert len(tar) == shard["bytes"] and hashlib.sha256(tar).hexdigest() == shard["sha256"]
        names = images_of(settings, split)
        all_members = list(members(tar))
        length = len(names) + 1
        samples = [all_members[first : first + length] for first in range(0, len(all_members), length)]
        assert len(samples) == shard["samples"]
        assert (folder / f"{name}.idx").read_bytes() == index_lines(samples)
        for ordinal, sample in enumerate(samples):
            key = f"{int(split == 'val')}{name[-6:]}{ordinal:05d}"
            files = [extension(settings, image) for image in names] + ["json"]
            assert [member for member, _, _ in sample] == [f"{key}.{file}" for file in files]
            contents = [tar[offset : offset + size] for _, offset, size in sample]
            images = dict(zip(names, contents[:-1], strict=True))
            for image, file in zip(names, files, strict=False):
                if file.endswith(".npy"):
                    images[image] = npy_pixels(images[image], edge(settings, image))
            assert contents[-1].endswith(b"}\n") and contents[-1].count(b"\n") == 1
            yield key, images, json.loads(contents[-1])
