"""Image files with damage in them, through the generator: a sample or a named failure, the same every time."""

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
_HANG_S = 10.0
_WORDS = ("-s", 2, "--size", 64, "--shard-bytes", "2MB", "--max-failures", "100%", "--auto")


def mutate_images(session: Session) -> None:
    """All of them in one folder: made by two workers, and again in one process with an eye on the time of each."""
    copy_sample_photos(session.scratch / "real")
    sources = sorted((session.scratch / "real").rglob("*.*"))
    photos = session.scratch / "photos"
    photos.mkdir()
    for number in session.cases():
        extension, content = _image(session.rng, sources)
        mutated = _mutated(content, session.rng)
        (photos / f"{number:06d}.{extension}").write_bytes(mutated)
    session.begin_as("all of them")
    given = ("generate", "-i", photos, *_WORDS)
    first = commands.run("shardgen", *given, "--workers", 2, "-o", session.scratch / "pool")
    timed = run_warm(
        "shardgen", *given, "--workers", 0, "-o", session.scratch / "serial", prepare=(_time_photos, (session.scratch,))
    )
    for done in (first, timed):
        if done.crash or done.code not in (0, 1) or "was killed" in done.err:
            session.fail("crashed", done.crash or done.err)
            return
    problems = differences(session.scratch / "serial", hashes(session.scratch / "pool"))
    manifest = json.loads((session.scratch / "serial" / "scale_2x" / "manifest.json").read_text())["totals"]
    if manifest["photos"] != session.times or manifest["samples"] + manifest["failures"] != session.times:
        problems.append(("samples_lost", f"of {session.times} photos: {manifest}"))
    checked = run_warm("shardgen", "verify", session.scratch / "serial")
    if checked.code:
        problems.append(("half_written", checked.err))
    for kind, message in problems:
        session.fail(kind, message)
    session.tally.named, session.tally.harmless = manifest["failures"], manifest["samples"]
    slowest = max(map(float, (session.scratch / "seconds").read_text().split()))
    session.tally.note = (
        f"the slowest took {slowest:.2f} s (limit: {_HANG_S:.0f} s); harmless: decoded twice to the same pixels"
    )
    shutil.rmtree(photos)


def _image(rng: Random, sources: list[Path]) -> tuple[str, bytes]:
    """A real photo, made small, as one of the formats."""
    extension, image_format, options = rng.choice(_SAVED_AS)
    with Image.open(rng.choice(sources)) as photo:
        small = photo.convert("RGB").resize(rng.choice(_SIZES))
    stream = io.BytesIO()
    small.save(stream, image_format, **options)
    return extension, stream.getvalue()


def _mutated(content: bytes, rng: Random) -> bytes:
    """One to three of: bits, cuts, bytes put in or taken out, header fields, zeros."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            for _ in range(rng.randint(2, 50)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[max(1, place) :]
        elif kind == 3:
            data[place:place] = rng.randbytes(rng.choice((1, 4, 512, 4096)))
        elif kind == 4:
            del data[place : place + rng.choice((1, 4, 512))]
        elif kind == 5:  # what stands at the front says how large all is
            head = rng.randrange(min(64, len(data)))
            data[head : head + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", rng.randbytes(4)))
        else:
            data[place : place + 4096] = bytes(min(4096, len(data) - place))
        data = data or bytearray(b"\0")
    return bytes(data)


def _time_photos(scratch: Path) -> None:
    """Note how long each photo takes, and die of one that takes too long."""
    add = shard_job._add_photo

    def timed(photo: Any, *args: Any) -> Any:
        start_s = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, _HANG_S)
        try:
            return add(photo, *args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds.write(f"{time.perf_counter() - start_s:.4f}\n")

    seconds = open(scratch / "seconds", "w", buffering=1)  # noqa: SIM115 (until the process ends)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    job: Any = shard_job
    job._add_photo = timed
