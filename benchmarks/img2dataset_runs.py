"""img2dataset from a local HTTP server: centre-cropped 512 px WebDataset shards of the same photos, HR only.

img2dataset downloads, so the photos come from a server on the loopback interface (photo_server.py), which shares the
cores; its CPU seconds are in the result. Choices favour img2dataset: as many processes as the others, 16 threads each
(4 are slower on loopback), two shards per process (the default of 10,000 photos per shard would leave all but one
process idle, and a process is replaced after five shards). PNG at level 1, the fastest that compresses, and at level 0,
which does not. All other settings are defaults: it hashes the downloads (SHA-256), reads EXIF, and writes a Parquet
table with each shard. It does not flush to disk.

Clocks: the whole command, which includes some seconds of imports; and from the start of the first shard to the end of
the last in its own statistics files, which excludes all imports.

It needs a separate environment, because its dependencies conflict with this project's. The network is not accessed:
the update check of Albumentations and Weights & Biases are disabled.
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

from benchmarks.common import REPOSITORY, PhotoSet, RunFailedError, folder_bytes, python_module, timed_command
from benchmarks.generate_rounds import Case, Run

_THREADS_PER_PROCESS = 16
_SHARDS_PER_PROCESS = 2
_OFFLINE = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "no_proxy": "*"}
_VERSIONS = (
    "import img2dataset, cv2, importlib.metadata as m; print(m.version('img2dataset'), 'with OpenCV', cv2.__version__)"
)


def version(python: str | None) -> str:
    """Return the installed version of img2dataset. RunFailedError when it cannot be imported."""
    if python is None:
        raise RunFailedError("not installed; pass --img2dataset PYTHON, the interpreter of an environment that has it")
    try:
        return timed_command([python, "-c", _VERSIONS], _OFFLINE)[1].strip()
    except (RunFailedError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunFailedError(f"not installed: the interpreter of --img2dataset cannot import it ({reason})") from error


def case(name: str, python: str | None, encode_format: str, quality: int, workers: int) -> Case:
    """Return the case of one output format; `quality` is the PNG level 0-9 or the JPEG quality 0-100."""
    what = f"img2dataset, HR only, {encode_format} {quality}, from a loopback HTTP server"
    options: dict[str, str | int] = {
        "encode_format": encode_format,
        "encode_quality": quality,
        "processes_count": workers,
    }
    return Case(name, what, functools.partial(_run, python, options), optional=True)


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
    """Return seconds from first start to last end in its statistics. RunFailedError unless every photo succeeded."""
    shards = [json.loads(path.read_bytes()) for path in output.glob("*_stats.json")]
    successes = sum(shard["successes"] for shard in shards)
    if successes != num_photos:
        raise RunFailedError(f"only {successes} of {num_photos} photos succeeded")
    return float(max(shard["end_time"] for shard in shards) - min(shard["start_time"] for shard in shards))


@contextmanager
def _serving(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve the photos; yield the address and the process."""
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
