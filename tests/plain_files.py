"""An independent decoder of photos: PNG and TIFF in Python, JPEG pixels by OpenCV, other formats by Pillow.

Written from the specifications of the file formats and from docs/reference/formats.md, without code of this project.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

OPAQUE = 1  # an alpha of 1 out of 1
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
IDENTITY = ((0, 0, 1, 1),)
TIFF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 7: "B"}
ORIENTATION = 274


class Picture(NamedTuple):
    """Pixels as stored, before orientation: integers up to a maximum."""

    colour: np.ndarray  # H x W x 1 or 3
    maximum: int
    orientation: int = 1
    alpha: Any = OPAQUE  # H x W
    alpha_maximum: int = 1
    profile: bytes = b""  # embedded ICC profile


class Jpeg(NamedTuple):
    """The header of a JPEG."""

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]  # horizontal and vertical factor of each component
    orientation: int


def decode(data: bytes) -> Picture:
    """Decode the first frame or page."""
    return stored_pixels(data)._replace(profile=icc_profile(data))


def icc_profile(data: bytes) -> bytes:
    """Return the embedded ICC profile of a PNG, TIFF, JPEG, WebP or AVIF; empty if there is none."""
    if data[:4] == b"\x89PNG":
        found = [body for name, body in png_chunks(data) if name == b"iCCP"]
        return zlib.decompress(found[0].partition(b"\0")[2][1:]) if found else b""
    if data[:4] in (b"II*\0", b"MM\0*"):
        return bytes(tiff_tags(data).get(34675, b""))
    if data[:2] == b"\xff\xd8":
        parts = {body[12]: body[14:] for kind, body in jpeg_segments(data) if kind == 0xE2 and body[:4] == b"ICC_"}
        return b"".join(parts[number] for number in sorted(parts))
    if data[:4] == b"RIFF":
        return b"".join(body for name, body in webp_chunks(data) if name == b"ICCP")
    start = data.find(b"colrprof")
    return data[start + 8 : start - 4 + int.from_bytes(data[start - 4 : start], "big")] if start > 0 else b""


def stored_pixels(data: bytes) -> Picture:
    """Decode the first frame or page, without its profile."""
    if data[:4] == b"\x89PNG":
        return png(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return tiff(data)
    if data[:2] == b"\xff\xd8":
        return Picture(jpeg_pixels(data), 255, jpeg_header(data).orientation)
    return by_pillow(data)


def exif_orientation(block: bytes) -> int:
    """Return the orientation in an EXIF block, which is a TIFF without an image."""
    return orientation_of(tiff_tags(block.removeprefix(b"Exif\0\0")))


def orientation_of(tags: dict[int, list[int]]) -> int:
    """Return the orientation of a TIFF directory, 1 if it is missing or invalid."""
    value = tags.get(ORIENTATION, [1])[0]
    return value if value in range(1, 9) else 1


def xmp_orientation(data: bytes) -> int:
    """Return the orientation in the XMP of a file, 1 if there is none."""
    found = re.search(rb'tiff:Orientation="([1-8])"', data)
    return int(found[1]) if found else 1


# PNG


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the name and content of each chunk, in order."""
    offset, chunks = 8, []
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        chunks.append((data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]))
        offset += length + 12
    return chunks


def png(data: bytes) -> Picture:
    """Decode a PNG; of an animated one, the default image."""
    chunks = dict(reversed([chunk for chunk in png_chunks(data) if chunk[0] != b"IDAT"]))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    stream = zlib.decompress(b"".join(content for name, content in png_chunks(data) if name == b"IDAT"))
    samples = np.zeros((height, width, channels), np.int64)
    for top, left, down, across in ADAM7 if interlaced else IDENTITY:
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if rows > 0 and columns > 0:
            part, stream = png_pass(stream, rows, columns, channels, depth)
            samples[top::down, left::across] = part
    orientation = exif_orientation(chunks[b"eXIf"]) if b"eXIf" in chunks else xmp_orientation(data)
    maximum, transparent = 2**depth - 1, chunks.get(b"tRNS", b"")
    if kind == 3:
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3).astype(np.int64)
        alphas = np.frombuffer(transparent.ljust(len(palette), b"\xff"), np.uint8).astype(np.int64)
        return Picture(palette[samples[..., 0]], 255, orientation, alphas[samples[..., 0]], 255)
    if kind in (4, 6):
        return Picture(samples[..., :-1], maximum, orientation, samples[..., -1], maximum)
    if transparent:
        colour = np.frombuffer(transparent, ">u2") & maximum
        return Picture(samples, maximum, orientation, (samples != colour).any(axis=2).astype(np.int64), 1)
    return Picture(samples, maximum, orientation)


def png_pass(stream: bytes, rows: int, columns: int, channels: int, depth: int) -> tuple[np.ndarray, bytes]:
    """Decode one pass (or a non-interlaced image): rows x columns x channels, and the remaining bytes."""
    length, step = -(-columns * channels * depth // 8), max(1, channels * depth // 8)
    above, lines = bytearray(length), []
    for row in range(rows):
        start = row * (length + 1)
        above = png_row(stream[start], stream[start + 1 : start + 1 + length], above, step)
        lines.append(bytes(above))
    flat = np.frombuffer(b"".join(lines), np.uint8).reshape(rows, length)
    if depth == 16:
        values = flat.reshape(rows, -1, 2) @ np.array([256, 1])
    else:
        bits = np.unpackbits(flat, axis=1).reshape(rows, -1, depth)
        values = bits @ (1 << np.arange(depth)[::-1])
    return values[:, : columns * channels].reshape(rows, columns, channels), stream[rows * (length + 1) :]


def png_row(kind: int, row: bytes, above: bytearray, step: int) -> bytearray:
    """Undo the filter of a row."""
    out = bytearray(row)
    for i in range(len(row)):
        left, up = out[i - step] if i >= step else 0, above[i]
        corner = above[i - step] if i >= step else 0
        prediction = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
        out[i] = (row[i] + prediction) & 255
    return out


def paeth(left: int, up: int, corner: int) -> int:
    """Return the neighbour nearest to left + up - corner."""
    prediction = left + up - corner
    return min((left, up, corner), key=lambda value: abs(prediction - value))


# TIFF


def tiff_tags(data: bytes) -> dict[int, list[int]]:
    """Return the values of the first directory by tag."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind in TIFF_TYPES:
            layout = f"{order}{number * len(TIFF_TYPES[kind])}{TIFF_TYPES[kind][0]}"
            (offset,) = struct.unpack_from(order + "I", data, entry + 8)
            tags[tag] = list(struct.unpack_from(layout, data, entry + 8 if struct.calcsize(layout) <= 4 else offset))
    return tags


def tiff(data: bytes) -> Picture:
    """Decode the first page: interleaved, uncompressed or deflate, in strips or tiles."""
    tags = tiff_tags(data)
    width, height, channels = tags[256][0], tags[257][0], tags.get(277, [1])[0]
    depth = tags.get(258, [1])[0]
    tiled = 322 in tags
    across, down = (tags[322][0], tags[323][0]) if tiled else (width, tags.get(278, [height])[0])
    offsets, lengths = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    samples = np.zeros((height, width, channels), np.int64)
    origins = [(top, left) for top in range(0, height, down) for left in range(0, width, across)]
    for (top, left), offset, length in zip(origins, offsets, lengths, strict=True):
        content = data[offset : offset + length]
        if tags.get(259, [1])[0] != 1:
            content = zlib.decompress(content)
        part = tiff_samples(content, across, channels, depth, ">" if data[:2] == b"MM" else "<")
        part = part[: height - top, : width - left]
        samples[top : top + len(part), left : left + part.shape[1]] = part
    orientation = orientation_of(tags)
    maximum, photometric = 2**depth - 1, tags[262][0]
    if photometric == 3:
        palette = np.array(tags[320]).reshape(3, -1).T
        return Picture(palette[samples[..., 0]], 65535, orientation)
    colours = 3 if photometric == 2 else 1
    colour = samples[..., :colours] if photometric else maximum - samples[..., :colours]
    if channels == colours:
        return Picture(colour, maximum, orientation)
    if tags[338][0] == 2:  # unassociated alpha
        return Picture(colour, maximum, orientation, samples[..., colours], maximum)
    return Picture(colour, maximum, orientation)  # premultiplied, which equals blending over black, or no alpha


def tiff_samples(content: bytes, across: int, channels: int, depth: int, order: str) -> np.ndarray:
    """Unpack samples to rows x across x channels."""
    if depth >= 8:
        return np.frombuffer(content, f"{order}u{depth // 8}").reshape(-1, across, channels).astype(np.int64)
    row_bytes = -(-across * channels * depth // 8)
    bits = np.unpackbits(np.frombuffer(content, np.uint8).reshape(-1, row_bytes), axis=1)
    values = bits.reshape(len(bits), -1, depth) @ (1 << np.arange(depth)[::-1])
    return values[:, : across * channels].reshape(-1, across, channels)


# JPEG


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and content of each segment before the pixels."""
    offset, marker = 2, 0
    while marker != 0xDA:
        marker, length = struct.unpack_from(">xBH", data, offset)
        yield marker, data[offset + 4 : offset + 2 + length]
        offset += 2 + length


def jpeg_header(data: bytes) -> Jpeg:
    """Return size, sampling factors and orientation."""
    orientation = xmp_orientation(data)
    for marker, content in jpeg_segments(data):
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation = exif_orientation(content)
        if marker in (0xC0, 0xC1, 0xC2):
            height, width, count = struct.unpack_from(">xHHB", content)
            factors = [content[7 + 3 * number] for number in range(count)]
            return Jpeg(width, height, tuple((factor >> 4, factor & 15) for factor in factors), orientation)
    raise ValueError("no frame header")


def jpeg_pixels(data: bytes, reduction: int = 1) -> np.ndarray:
    """Return H x W x 3 as stored, each edge divided by `reduction` (1, 2, 4, 8) and rounded up."""
    if len(jpeg_header(data).sampling) == 4:
        return cmyk_pixels(data)
    reduced = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flags = reduced.get(reduction, cv2.IMREAD_REDUCED_COLOR_8) | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]


def cmyk_pixels(data: bytes) -> np.ndarray:
    """Return RGB = (255 - CMY)(255 - K) / 255, rounded."""
    with Image.open(io.BytesIO(data)) as image:
        ink = np.asarray(image).astype(np.int64)
    light = (255 - ink[..., :3]) * (255 - ink[..., 3:])
    return (2 * light + 255) // 510


# other formats


def by_pillow(data: bytes) -> Picture:
    """Decode the first frame of a GIF, WebP or AVIF; the orientation is read here, not by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
        kind = image.format
    orientation = {"WEBP": webp_orientation, "AVIF": avif_orientation}.get(kind or "", lambda _: 1)(data)
    return Picture(pixels[..., :3], 255, orientation, pixels[..., 3], 255)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and content of each chunk."""
    offset = 12
    while offset < len(data):
        name, length = struct.unpack_from("<4sI", data, offset)
        yield name, data[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2


def webp_orientation(data: bytes) -> int:
    """Return the orientation in the EXIF chunk, or else in the XMP."""
    block = next((body for name, body in webp_chunks(data) if name == b"EXIF"), None)
    return xmp_orientation(data) if block is None else exif_orientation(block)


def avif_orientation(data: bytes) -> int:
    """Return the orientation given by the properties irot (counterclockwise quarter turns), then imir (mirror)."""
    quarters = data[data.index(b"irot") + 4] & 3 if b"irot" in data else 0
    mirror = data[data.index(b"imir") + 4] & 1 if b"imir" in data else None
    upside_down = {(0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6}
    mirrored = {(0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2, (2, 1): 4, (3, 0): 7, (3, 1): 5}
    return {**upside_down, **mirrored}[quarters, mirror]
