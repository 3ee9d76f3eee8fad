"""img2dataset, fed from this machine: centre-cropped 512 px WebDataset shards of the same photos, HR only.

It downloads, so the photos come from an HTTP server on the loopback interface (photo_server.py), which takes a share
of the same cores; its CPU seconds are in the result. Where there was a choice, it is to img2dataset's advantage: as
many processes as the others, 16 threads each (on the loopback 4 are slower), two shards per process (its default of
10,000 photos per shard would leave all but one process idle, and it replaces a process after five shards). PNG at level
1, its fastest that compresses, and at level 0, which stores. The rest is its defaults: it hashes what it downloads
(sha256), reads EXIF, and writes a Parquet table beside each shard. It does not flush to the disk.

Clocks: the whole command, which includes some seconds of imports; and from the first shard's start to the last one's
end as its own statistics files have them, which leaves out every import.

It lives in an environment of its own, because what it depends on conflicts with what this project does. No access to a
network is needed: the update check of Albumentations and Weights & Biases are switched off.
"""

import functools
import json
import math
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil

from benchmarks.common import REPOSITORY, PhotoSet, Run, RunFailedError, Way, folder_bytes, python_module, timed_command

_THREADS_PER_PROCESS = 16
_SHARDS_PER_PROCESS = 2
_OFFLINE = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "no_proxy": "*"}
_VERSIONS = (
    "import img2dataset, cv2, importlib.metadata as m; print(m.version('img2dataset'), 'with OpenCV', cv2.__version__)"
)


def version(python: str | None) -> str:
    """What of img2dataset that interpreter has. RunFailedError `not installed` when it cannot be imported."""
    if python is None:
        raise RunFailedError("not installed: name the Python of an environment that has it with --img2dataset")
    try:
        return timed_command([python, "-c", _VERSIONS], _OFFLINE)[1].strip()
    except (RunFailedError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunFailedError(f"not installed: the Python of --img2dataset cannot import it ({reason})") from error


def way(name: str, python: str | None, encode_format: str, quality: int, workers: int) -> Way:
    """One output format of it; `quality` is the PNG level 0-9 or the JPEG quality 0-100."""
    what = f"img2dataset, HR only, {encode_format} {quality}, from a loopback HTTP server"
    options: dict[str, str | int] = {
        "encode_format": encode_format,
        "encode_quality": quality,
        "processes_count": workers,
    }
    return Way(name, what, functools.partial(_run, python, options), optional=True)


def _run(python: str | None, options: dict[str, str | int], photos: PhotoSet, output: Path) -> Run:
    version(python)
    num_shards = _SHARDS_PER_PROCESS * int(options["processes_count"])
    list_path = output.with_name("urls.txt")
    with _serving(photos.root) as (address, server):
        list_path.write_text("".join(f"{address}/{quote(os.fsencode(path))}\n" for path in photos.paths))
        before_s = _cpu_s(server)
        settings = {
            **options,
            "url_list": list_path,
            "output_folder": output,
            "image_size": 512,
            "resize_mode": "center_crop",
            "output_format": "webdataset",
            "thread_count": _THREADS_PER_PROCESS,
            "number_sample_per_shard": math.ceil(len(photos.paths) / num_shards),
        }
        args = [str(python), "-m", "img2dataset.main", *(f"--{key}={value}" for key, value in settings.items())]
        command_s, _ = timed_command(args, _OFFLINE)
        server_s = _cpu_s(server) - before_s
    return Run(
        len(photos.paths), command_s, _work_s(output, len(photos.paths)), folder_bytes(output), {"server_cpu": server_s}
    )


def _work_s(output: Path, num_photos: int) -> float:
    """First start to last end by its statistics files. RunFailedError when it did not make every photo."""
    shards = [json.loads(path.read_bytes()) for path in output.glob("*_stats.json")]
    successes = sum(shard["successes"] for shard in shards)
    if successes != num_photos:
        raise RunFailedError(f"made {successes} of {num_photos} photos: no fair comparison")
    return float(max(shard["end_time"] for shard in shards) - min(shard["start_time"] for shard in shards))


@contextmanager
def _serving(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a server of the photos."""
    args = python_module("benchmarks.photo_server", root)
    with subprocess.Popen(args, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", psutil.Process(process.pid)
        finally:
            process.terminate()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
