"""Damage image files: `generate` must turn each into a sample or a reported failure, the same in every run."""

import io
import json
import shutil
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from shardgen.sample_photos import copy_sample_photos
from shardgen.shard import job as shard_job
from tests.drill import commands
from tests.drill.folders import differences, hashes
from tests.drill.session import Session
from tests.drill.warm import run_warm

_SIZES = ((160, 120), (37, 211))
_SAVED_AS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("jpg", "JPEG", {"quality": 90}),
    ("jpg", "JPEG", {"quality": 80, "progressive": True, "subsampling": 2}),
    ("png", "PNG", {}),
    ("webp", "WEBP", {"quality": 80}),
    ("webp", "WEBP", {"lossless": True}),
    ("tif", "TIFF", {}),
    ("tif", "TIFF", {"compression": "tiff_lzw"}),
    ("tif", "TIFF", {"compression": "jpeg"}),
    ("gif", "GIF", {}),
    ("bmp", "BMP", {}),
)
_TIMEOUT_S = 10.0
_ARGS = ("-s", 2, "--size", 64, "--shard-bytes", "2MB", "--max-failures", "100%", "--auto", "-o")


def mutate_images(session: Session) -> None:
    """Generate from all images with two workers, then in one process that limits the time per image."""
    copy_sample_photos(session.scratch / "real")
    sources = sorted((session.scratch / "real").rglob("*.*"))
    photos = session.scratch / "photos"
    photos.mkdir()
    for number in session.cases():
        extension, content = _image(session.rng, sources)
        (photos / f"{number:06d}.{extension}").write_bytes(_mutated(content, session.rng))
    session.describe("all images")
    generate = ("shardgen", "generate", "-i", photos, *_ARGS)
    pool, serial = session.scratch / "pool", session.scratch / "serial"
    results = [
        commands.run(*generate, pool, "--workers", 2),
        run_warm(*generate, serial, "--workers", 0, prepare=(_limit_time, (session.scratch,))),
    ]
    for result in results:
        if result.crash or result.code not in (0, 1) or "was killed" in result.err:
            session.fail("crashed", result.crash or result.err)
            return
    problems = differences(serial, hashes(pool))
    totals = json.loads((serial / "scale_2x" / "manifest.json").read_text())["totals"]
    if totals["photos"] != session.times or totals["samples"] + totals["failures"] != session.times:
        problems.append(("samples_lost", f"of {session.times} photos: {totals}"))
    verified = run_warm("shardgen", "verify", serial)
    if verified.code:
        problems.append(("half_written", verified.err))
    for kind, message in problems:
        session.fail(kind, message)
    session.tally.named, session.tally.harmless = totals["failures"], totals["samples"]
    slowest = max(map(float, (session.scratch / "seconds").read_text().split()))
    session.tally.note = (
        f"the slowest took {slowest:.2f} s (limit: {_TIMEOUT_S:.0f} s); harmless: decoded twice to the same pixels"
    )
    shutil.rmtree(photos)


def _image(rng: Random, sources: list[Path]) -> tuple[str, bytes]:
    """Return a downscaled sample photo in a random format, and its file name extension."""
    extension, image_format, options = rng.choice(_SAVED_AS)
    with Image.open(rng.choice(sources)) as photo:
        small = photo.convert("RGB").resize(rng.choice(_SIZES))
    stream = io.BytesIO()
    small.save(stream, image_format, **options)
    return extension, stream.getvalue()


def _mutated(content: bytes, rng: Random) -> bytes:
    """Apply one to three mutations: flip bits, truncate, insert, delete, overwrite a header field, zero a page."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        position = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[position] ^= 1 << rng.randrange(8)
        elif kind == 1:
            for _ in range(rng.randint(2, 50)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[max(1, position) :]
        elif kind == 3:
            data[position:position] = rng.randbytes(rng.choice((1, 4, 512, 4096)))
        elif kind == 4:
            del data[position : position + rng.choice((1, 4, 512))]
        elif kind == 5:  # headers contain the image size
            head = rng.randrange(min(64, len(data)))
            data[head : head + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", rng.randbytes(4)))
        else:
            data[position : position + 4096] = bytes(min(4096, len(data) - position))
        data = data or bytearray(b"\0")
    return bytes(data)


def _limit_time(scratch: Path) -> None:
    """Record the seconds that each photo takes; SIGALRM ends the process if one takes too long."""
    add = shard_job._add_photo

    def timed(photo: Any, *args: Any) -> Any:
        start_s = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, _TIMEOUT_S)
        try:
            return add(photo, *args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds.write(f"{time.perf_counter() - start_s:.4f}\n")

    seconds = open(scratch / "seconds", "w", buffering=1)  # noqa: SIM115 (until the process ends)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    job: Any = shard_job
    job._add_photo = timed
