"""Photos of many kinds: all types of PNG, TIFF and JPEG, orientations, transparency, animations, unusual sizes."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image
from plain_files import ADAM7, IDENTITY, ORIENTATION

# JPEG chroma subsamplings, with the width and height of their MCU in px
SUBSAMPLINGS = {"444": (8, 8), "422": (16, 8), "440": (8, 16), "420": (16, 16), "411": (32, 8)}
REDUCIBLE = ((128, 128), (160, 128), (144, 136), (136, 128), (132, 128), (129, 131), (72, 40), (248, 96))
SIZES = ((1, 1), (2, 7), (300, 2), (3, 200), (16, 16), (15, 17), (21, 21), (22, 22), (63, 64), (97, 31))


def odd_photos() -> dict[str, bytes]:
    """Return the content of each file by name."""
    parts = (oriented(), pngs(), tiffs(), jpegs(), reducible_jpegs(), animations(), sizes())
    photos = [photo for part in parts for photo in part]
    assert len(photos) == len(dict(photos))
    return dict(photos)


def noise(height: int, width: int, channels: int, maximum: int, seed: int = 0) -> np.ndarray:
    """H x W x channels integers: gradients with noise, and many values at the limits and in the middle."""
    rng = np.random.default_rng((seed, height, width, channels, maximum))
    slopes = np.add.outer(np.linspace(0, 0.6, height), np.linspace(0, 0.3, width))[..., None]
    values = (slopes * rng.uniform(0.7, 1, channels) + rng.uniform(0, 0.1, (height, width, channels))) * maximum
    special = rng.choice([0, 1, maximum // 2, maximum // 2 + 1, maximum - 1, maximum], values.shape)
    return np.where(rng.random(values.shape) < 0.2, special, values).astype(int)


def smooth(height: int, width: int) -> np.ndarray:
    """H x W x 3 uint8: smooth colours."""
    corners = np.random.default_rng((height, width)).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def exif(orientation: int) -> bytes:
    """An EXIF block with an orientation only."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, ORIENTATION, 3, 1, orientation, 0, 0)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(pixels: np.ndarray, sampling: str = "420", orientation: int = 1, quality: int = 90, **flags: int) -> bytes:
    """Encode RGB, or grey of two dimensions, with an EXIF block."""
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    settings += [number for name, value in flags.items() for number in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    image = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels, np.uint8)
    data = cv2.imencode(".jpg", image, settings)[1].tobytes()
    block = exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def padded_jpeg(pixels: np.ndarray, sampling: str, orientation: int = 1, quality: int = 90) -> bytes:
    """Like `jpeg`, but the last blocks are padded with black instead of the repeated edge."""
    (height, width), (across, down) = pixels.shape[:2], SUBSAMPLINGS[sampling]
    padded = np.pad(pixels, ((0, -height % down), (0, -width % across), (0, 0)))
    data = jpeg(padded, sampling, orientation, quality)
    size, cropped_size = struct.pack(">BHH", 8, *padded.shape[:2]), struct.pack(">BHH", 8, height, width)
    assert data.count(size) == 1
    return data.replace(size, cropped_size)


def oriented() -> Iterator[tuple[str, bytes]]:
    """The eight orientations in five formats, and invalid numbers."""
    pixels = noise(70, 93, 3, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    for number in (*range(1, 9), 0, 9):
        yield f"orientation/{number}.jpg", jpeg(pixels, "444", number)
        yield f"orientation/{number}.png", png(pixels, 8, 2, exif=exif(number)[6:])
        yield f"orientation/{number}.webp", saved(image, "WEBP", lossless=True, exif=exif(number))
        yield f"orientation/{number}.tif", tiff([pixels], 2, 8, orientation=number)
        if number in range(1, 9):
            yield f"orientation/{number}.avif", saved(image, "AVIF", quality=70, speed=10, exif=exif(number))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    yield "orientation/xmp.webp", saved(image, "WEBP", lossless=True, xmp=xmp)
    yield "orientation/xmp.jpg", saved(image, "JPEG", xmp=xmp)
    yield "orientation/xmp-and-exif.jpg", saved(image, "JPEG", xmp=xmp, exif=exif(3))
    deep = noise(70, 93, 3, 65535)
    for number in (3, 5, 7, 8):
        yield f"orientation/16-bit-{number}.png", png(deep, 16, 2, exif=exif(number)[6:])
        yield f"orientation/16-bit-{number}.tif", tiff([deep], 2, 16, orientation=number)
        yield f"orientation/grey-{number}.jpg", jpeg(pixels[..., 0], "444", number)
        yield f"orientation/bilevel-{number}.tif", tiff([noise(70, 93, 1, 1)], 1, 1, orientation=number)


# PNG


def png(
    samples: np.ndarray,
    depth: int,
    kind: int,
    *,
    interlaced: bool = False,
    palette: np.ndarray | None = None,
    transparent: bytes = b"",
    exif: bytes = b"",
) -> bytes:
    """Encode H x W x channels as a PNG of any colour type and depth, without row filters."""
    height, width, _ = samples.shape
    stream = b"".join(
        b"\0" + packed(row.reshape(-1), depth, ">")
        for top, left, down, across in (ADAM7 if interlaced else IDENTITY)
        for row in samples[top::down, left::across]
        if row.size
    )
    colours = palette.astype(np.uint8).tobytes() if palette is not None else b""
    extra = ((b"PLTE", colours), (b"tRNS", transparent), (b"eXIf", exif))
    chunks = b"".join(png_chunk(name, body) for name, body in extra if body)
    return raw_png((height, width), depth, kind, stream, chunks, interlaced)


def raw_png(
    size: tuple[int, int], depth: int, kind: int, raw: bytes, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG of (height, width) px; `raw` is IDAT before compression, `extra` the chunks before it."""
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, interlaced)
    chunks = (png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_16(pixels: np.ndarray, extra: bytes = b"") -> bytes:
    """Encode H x W x channels uint16 as a PNG: grey, grey with alpha, RGB or RGBA."""
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return raw_png(pixels.shape[:2], 16, {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]], raw, extra)


def bomb(edge: int) -> bytes:
    """A PNG whose header announces edge x edge px, with almost no data."""
    return raw_png((edge, edge), 8, 2, bytes(1000))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def packed(row: np.ndarray, depth: int, order: str) -> bytes:
    """Pack a row of samples into bytes."""
    if depth >= 8:
        return row.astype(f"{order}u{depth // 8}").tobytes()
    return np.packbits((row[:, None] >> np.arange(depth)[::-1]) & 1).tobytes()


def pngs() -> Iterator[tuple[str, bytes]]:
    """Every colour type and depth, flat and interlaced, with and without transparency."""
    for kind, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (4, 2, (8, 16)), (6, 4, (8, 16))):
        for depth in depths:
            samples = noise(67, 81, channels, 2**depth - 1)
            for interlaced in (False, True):
                name = f"png/type{kind}-{depth}{'-adam7' if interlaced else ''}"
                yield f"{name}.png", png(samples, depth, kind, interlaced=interlaced)
                if kind in (0, 2):
                    colour = struct.pack(f">{channels}H", *[max(1, samples.max() // 2)] * channels)
                    yield f"{name}-trns.png", png(samples, depth, kind, interlaced=interlaced, transparent=colour)
    for depth in (1, 2, 4, 8):
        samples, palette = noise(67, 81, 1, 2**depth - 1), noise(1, 2**depth, 3, 255)[0]
        for count in (0, 1, 2**depth):
            alphas = bytes(noise(1, 1, count, 255)[0, 0].tolist())
            yield f"png/palette-{depth}-{count}.png", png(samples, depth, 3, palette=palette, transparent=alphas)
        yield f"png/palette-{depth}-adam7.png", png(samples, depth, 3, palette=palette, interlaced=True)
    short = noise(1, 200, 3, 255)[0]
    yield "png/palette-short.png", png(noise(67, 81, 1, 199), 8, 3, palette=short)
    for mode, channels in (("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)):
        image = Image.fromarray(noise(67, 81, channels, 255, 1).squeeze().astype(np.uint8), mode)
        yield f"png/filters-{mode}.png", saved(image, "PNG")
    levels = np.arange(65536).reshape(256, 256)
    yield "png/all-grey-levels.png", png(levels[..., None], 16, 0)
    yield "png/all-levels.png", png(np.stack([levels, levels[::-1], levels.T], axis=2), 16, 2)
    high, low = levels >> 8, levels & 255
    yield "png/all-alphas.png", png(np.stack([high, 255 - high, high.T, low], axis=2), 8, 6)


# TIFF


def tiff(
    pages: list[np.ndarray],
    photometric: int,
    depth: int,
    *,
    order: str = "<",
    strip: int | None = None,
    tile: tuple[int, int] | None = None,
    orientation: int = 1,
    extra: int | None = None,
    palette: np.ndarray | None = None,
    deflated: bool = False,
    planar: bool = False,
    sample_format: int = 1,
) -> bytes:
    """Encode H x W x channels pages in strips of `strip` rows or in tiles (width, height)."""
    directories = []
    for samples in pages:
        height, width, channels = samples.shape
        across, down = tile or (width, strip or height)
        parts = [
            samples[top : top + down, left : left + across]
            for top in range(0, height, max(1, down))
            for left in range(0, width, max(1, across))
        ] or [samples]
        if planar:
            parts = [samples[..., [channel]] for channel in range(channels)]
        if tile:
            parts = [np.pad(part, ((0, down - len(part)), (0, across - part.shape[1]), (0, 0))) for part in parts]
        contents = [b"".join(packed(row.reshape(-1), depth, order) for row in part) for part in parts]
        contents = [zlib.compress(content) if deflated else content for content in contents]
        tags = {256: [width], 257: [height], 258: [depth] * channels, 259: [8 if deflated else 1], 262: [photometric]}
        tags |= {ORIENTATION: [orientation], 277: [channels]}
        tags |= {322: [across], 323: [down]} if tile else {278: [down]}
        tags |= {320: palette.T.reshape(-1).tolist()} if palette is not None else {}
        tags |= {338: [extra]} if extra is not None else {}
        tags |= {284: [2]} if planar else {}
        tags |= {339: [sample_format] * channels} if sample_format != 1 else {}
        directories.append((tags, (324, 325) if tile else (273, 279), contents))
    return _tiff_file(directories, order)


def _tiff_file(pages: list[tuple[dict[int, list[int]], tuple[int, int], list[bytes]]], order: str) -> bytes:
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4  # where the offset of the next directory is written
    for tags, (offsets, lengths), contents in pages:
        tags = {**tags, offsets: [], lengths: [len(content) for content in contents]}
        for content in contents:
            tags[offsets].append(len(data))
            data += content + bytes(len(content) % 2)
        entries = b""
        for tag, values in sorted(tags.items()):
            kind, letter = (3, "H") if max(values) < 65536 and tag not in (offsets, lengths) else (4, "I")
            body = struct.pack(f"{order}{len(values)}{letter}", *values).ljust(4, b"\0")
            if len(body) > 4:
                body, values_bytes = struct.pack(order + "I", len(data)), body
                data += values_bytes + bytes(len(values_bytes) % 2)
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + body
        struct.pack_into(order + "I", data, link, len(data))
        data += struct.pack(order + "H", len(tags)) + entries
        link = len(data)
        data += bytes(4)
    return bytes(data)


def tiffs() -> Iterator[tuple[str, bytes]]:
    """Grey with both polarities, RGB, palette, alpha; strips, tiles, pages; both byte orders."""
    for photometric, kind in ((0, "white-is-zero"), (1, "grey")):
        for depth in (1, 8, 16):
            samples = noise(67, 81, 1, 2**depth - 1)
            yield f"tiff/{kind}-{depth}.tif", tiff([samples], photometric, depth)
            yield f"tiff/{kind}-{depth}-strips.tiff", tiff([samples], photometric, depth, order=">", strip=9)
            yield f"tiff/{kind}-{depth}-tiles.tif", tiff([samples], photometric, depth, tile=(32, 16), deflated=True)
    for depth in (8, 16):
        samples = noise(67, 81, 4, 2**depth - 1)
        yield f"tiff/rgb-{depth}.tif", tiff([samples[..., :3]], 2, depth, order=">")
        yield f"tiff/rgb-{depth}-tiles.tif", tiff([samples[..., :3]], 2, depth, tile=(16, 32))
        yield f"tiff/rgb-{depth}-strips.tif", tiff([samples[..., :3]], 2, depth, strip=10, deflated=True)
        yield f"tiff/rgba-{depth}.tif", tiff([samples], 2, depth, extra=2)
        yield f"tiff/no-alpha-{depth}.tif", tiff([samples], 2, depth, extra=0)
        pages = [samples[..., :3], samples[::-1, ::-1, 1:], noise(30, 40, 3, 2**depth - 1)]
        yield f"tiff/pages-{depth}.tif", tiff(pages, 2, depth)
        yield f"tiff/pages-white-is-zero-{depth}.tif", tiff([page[..., :1] for page in pages], 0, depth)
    yield "tiff/grey-alpha-8.tif", tiff([noise(67, 81, 2, 255)], 1, 8, extra=2)
    palette = noise(1, 256, 3, 255)[0] * 257
    yield "tiff/palette-8.tif", tiff([noise(67, 81, 1, 255)], 3, 8, palette=palette)


# JPEG


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Photos too small for reduced decoding."""
    pixels = noise(45, 61, 3, 255)
    for sampling in SUBSAMPLINGS:
        yield f"jpeg/{sampling}.jpg", jpeg(pixels, sampling)
        yield f"jpeg/{sampling}-progressive.jpg", jpeg(pixels, sampling, PROGRESSIVE=1)
        yield f"jpeg/{sampling}-restarts.jpg", jpeg(pixels, sampling, RST_INTERVAL=2)
    yield "jpeg/grey.jpg", jpeg(pixels[..., 0])
    yield "jpeg/grey-progressive.jpg", jpeg(pixels[..., 0], PROGRESSIVE=1)
    yield "jpeg/rgb.jpg", saved(Image.fromarray(pixels.astype(np.uint8)), "JPEG", keep_rgb=True)
    cmyk = Image.fromarray(noise(45, 61, 4, 255).astype(np.uint8), "CMYK")
    yield "jpeg/cmyk.jpg", saved(cmyk, "JPEG", quality=95)
    yield "jpeg/cmyk-turned.jpg", saved(cmyk, "JPEG", quality=95, exif=exif(6))


def reducible_jpegs() -> Iterator[tuple[str, bytes]]:
    """Large relative to `--size 16`: some can be decoded at 1/2, 1/4 or 1/8, others of similar size cannot."""
    for sampling in SUBSAMPLINGS:
        for width, height in REDUCIBLE:
            pixels = noise(height, width, 3, 255)
            yield f"reducible/{width}x{height}-{sampling}.jpg", jpeg(pixels, sampling)
            yield f"reducible/{width}x{height}-{sampling}-turned.jpg", jpeg(pixels, sampling, 5, PROGRESSIVE=1)
            yield f"reducible/{width}x{height}-{sampling}-padded.jpg", padded_jpeg(pixels, sampling)
    for number in range(1, 9):
        yield f"reducible/turned-{number}.jpg", jpeg(noise(128, 160, 3, 255), "420", number)
        yield f"reducible/turned-odd-{number}.jpg", jpeg(noise(131, 165, 3, 255), "420", number)
    for width, height in ((128, 128), (136, 144), (131, 157)):
        yield f"reducible/grey-{width}x{height}.jpg", jpeg(noise(height, width, 3, 255)[..., 0])
    header, frame = b"\xff\xc0\x00\x0b\x08\x00\x88\x00\x88\x01\x01", jpeg(noise(136, 136, 3, 255)[..., 0])
    assert header + b"\x11" in frame
    yield "reducible/grey-factors-2.jpg", frame.replace(header + b"\x11", header + b"\x22")
    cmyk = Image.fromarray(noise(128, 160, 4, 255).astype(np.uint8), "CMYK")
    yield "reducible/cmyk.jpg", saved(cmyk, "JPEG", quality=95)


# other formats


def animations() -> Iterator[tuple[str, bytes]]:
    """Animations, of which the first frame is used, even where it is transparent; WebP and AVIF stills."""
    frames = [Image.fromarray(noise(67, 81, 4, 255, seed).astype(np.uint8), "RGBA") for seed in range(3)]
    opaque = [frame.convert("RGB") for frame in frames]
    yield "animated/webp.webp", saved(opaque[0], "WEBP", save_all=True, append_images=opaque[1:], lossless=True)
    yield "animated/webp-alpha.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield "animated/gif.gif", saved(opaque[0], "GIF", save_all=True, append_images=opaque[1:], duration=50)
    yield "animated/gif-alpha.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
    yield "animated/apng.png", saved(opaque[0], "PNG", save_all=True, append_images=opaque[1:])
    still_first = {"save_all": True, "append_images": opaque[1:], "default_image": True}
    yield "animated/apng-default.png", saved(opaque[0], "PNG", **still_first)
    yield "animated/avif.avif", saved(opaque[0], "AVIF", save_all=True, append_images=opaque[1:], speed=10)
    yield "still/alpha.webp", saved(frames[0], "WEBP", lossless=True, exact=True)
    yield "still/lossy.webp", saved(frames[0], "WEBP", quality=60)
    yield "still/alpha.avif", saved(frames[0], "AVIF", quality=80, speed=10)
    for sampling in ("4:2:0", "4:2:2", "4:4:4", "4:0:0"):
        yield f"still/{sampling.replace(':', '')}.avif", saved(opaque[0], "AVIF", subsampling=sampling, speed=10)


def sizes() -> Iterator[tuple[str, bytes]]:
    """Tiny, long and odd sizes, and sizes at which the kernel changes."""
    for width, height in SIZES:
        yield f"sizes/{width}x{height}.png", png(noise(height, width, 3, 255), 8, 2)
