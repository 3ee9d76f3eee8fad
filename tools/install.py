"""Create a virtual environment; install PyTorch and then other packages into it, step by step, with progress.

make runs this before anything is installed, hence only the standard library:

    python3 -m tools.install --torch auto .venv "-e .[all,docs,dev]" "--no-deps spandrel"

PyTorch is installed first, by itself: pulled in by another package, it may be a build for CUDA, of several gigabytes.
Without an NVIDIA GPU, it comes from PyTorch's own index of builds for the CPU if that answers.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_S = 5.0  # limit for one connection or read; name servers and several addresses may add to it
GIVE_UP_S = 10.0

# Free space that an environment takes, with what pip unpacks meanwhile.
NEEDED_BYTES = {"cpu": 4_000_000_000, "cuda": 12_000_000_000}
# Downloads of this size have a line of their own where lines cannot be rewritten.
LARGE_MB = 20.0

# Run in the folder of the project.
PIP = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "-cconstraints.txt"]


class InstallError(Exception):
    """What prevents the installation and what to do, in sentences."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", default="auto", help="build of PyTorch: auto, cpu or cuda")
    parser.add_argument("--gpu", action="store_true", help="this machine has an NVIDIA GPU")
    parser.add_argument("venv", type=Path, help="folder of the environment")
    parser.add_argument("steps", nargs="+", help="arguments of one call of `pip install`")
    args = parser.parse_args()
    try:
        install(args.venv, args.torch, args.gpu, [shlex.split(step) for step in args.steps])
    except InstallError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command again to continue.")


def install(venv: Path, torch: str, has_gpu: bool, steps: list[list[str]]) -> None:
    """Create or complete `venv`; its file `.installed` then contains the build of PyTorch: cpu or cuda.

    `torch` is cpu, cuda, or auto: the build that `venv` has, else the one for this machine. Each of `steps` is the
    arguments of one `pip install`. InstallError if anything fails.
    """
    if torch not in ("auto", "cpu", "cuda"):
        raise InstallError(
            f"TORCH={torch}: expected cpu or cuda, or auto (the default: cuda if there is an NVIDIA GPU, else cpu)"
        )
    stamp = venv / ".installed"
    before = stamp.read_text().strip() if stamp.exists() else ""
    before = before if before in NEEDED_BYTES else ""
    build = torch if torch != "auto" else before or ("cuda" if has_gpu else "cpu")
    check_machine(venv, build)
    reason = "TORCH=" if torch != "auto" else "as before" if before else "an NVIDIA GPU" if has_gpu else "no NVIDIA GPU"
    other = "cpu" if build == "cuda" else "cuda"
    print(f"PyTorch for {build.upper()} ({reason}); for the other build: make install TORCH={other}", flush=True)
    options = ["--force-reinstall"] if torch not in ("auto", before) else []
    options += torch_options(build)

    stamp.unlink(missing_ok=True)
    total = len(steps) + 2
    pip = [str(venv / "bin" / "python"), *PIP]
    with Progress(f"1/{total}  Environment {venv}") as progress:
        if not all((venv / "bin" / name).exists() for name in ("python", "pip")):  # pip comes last
            run([sys.executable, "-m", "venv", str(venv)], progress)
    with Progress(f"2/{total}  pip install torch") as progress:
        run([*pip, *options, "torch"], progress)
        progress.result = describe_torch(venv, build)
    for number, step in enumerate(steps, 3):
        with Progress(f"{number}/{total}  pip install {' '.join(step)}") as progress:
            run([*pip, *step], progress)
    stamp.write_text(f"{build}\n")


def check_machine(venv: Path, build: str) -> None:
    """Raise InstallError if an environment cannot be created here, or not for lack of space."""
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        version = "{}.{}".format(*sys.version_info)
        raise InstallError(
            f"{sys.executable} cannot create virtual environments; on Debian or Ubuntu, run "
            f"`apt install python{version}-venv` as root, then the same command again"
        )
    folder = next(path for path in (venv.absolute(), *venv.absolute().parents) if path.exists())
    if not folder.is_dir():
        raise InstallError(f"{folder} is not a folder, so it cannot contain an environment; pass another one as VENV=")
    free, needed = shutil.disk_usage(folder).free, NEEDED_BYTES[build]
    if not venv.exists() and free < needed:
        raise InstallError(
            f"{venv.absolute()} needs {needed / 1e9:.0f} GB for the installation, but only {free / 1e9:.1f} GB are "
            "free; free some space, or pass a folder on another disk, e.g. make VENV=/other/disk/venv"
        )


def torch_options(build: str) -> list[str]:
    """Return the options of pip that choose the index for PyTorch.

    Only PyTorch is taken from PyTorch's index, which does not have all versions of its requirements.
    """
    if build == "cuda" or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return []  # elsewhere, the default index has builds for the CPU
    if answers(f"{CPU_INDEX}/torch/"):
        return ["--no-deps", "--index-url", CPU_INDEX]
    print(f"{CPU_INDEX} does not answer. From pip's default index, PyTorch may be a build for CUDA.", flush=True)
    return []


def answers(url: str) -> bool:
    """Whether the page can be opened. A separate process, because the look-up of a name has no time limit."""
    code = f"import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout={ANSWER_S}).close()"
    try:
        command = [sys.executable, "-c", code, url]
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=GIVE_UP_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def describe_torch(venv: Path, build: str) -> str:
    """Return the version of the installed PyTorch, with a remark if it is not the build that was asked for."""
    files = list(venv.glob("lib/python*/site-packages/torch/version.py"))
    if not files:
        return ""
    version = runpy.run_path(str(files[0]))  # importing torch would take seconds
    is_other = (version.get("cuda") is not None) != (build == "cuda")
    return f"torch {version['__version__']}" + (f", which is not a build for {build.upper()}" if is_other else "")


def run(command: list[str], progress: "Progress") -> None:
    """Run a command and show what it does; InstallError, with the reason that it gives, if it fails."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    last: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",  # compilers and paths may not write what the locale says
    ) as process:
        for line in _lines(process):
            if line is not None:
                last.append(line)
            progress.show(line)
    if process.returncode:
        progress.fail()
        raise InstallError(_reason(list(last)))


def _lines(process: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Yield the lines that a process prints, and None after each second without one."""
    queue: Queue[str | None] = Queue()
    stdout = process.stdout
    assert stdout is not None

    def read() -> None:
        for line in stdout:
            queue.put(line.rstrip())
        queue.put(None)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    while True:
        try:
            line = queue.get(timeout=1)
        except Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def _reason(lines: list[str]) -> str:
    """Return the reason of a failure and what to do, from the output of the command."""
    text = "\n".join(lines)
    errors = "\n".join([line for line in lines if line.startswith("ERROR:")] or lines[-10:])
    if "No space left on device" in text:
        return f"the disk is full; free some space, and run the same command again. pip said:\n{errors}"
    if re.search("connection broken by|Max retries exceeded|from versions: none", text):
        return (
            "pip reached no package index that has this package; check the network connection and the settings of pip "
            f"(`pip config list`), and run the same command again. pip said:\n{errors}"
        )
    return f"the installation failed; after a change, run the same command again. The output was:\n{errors}"


class Progress:
    """The progress of one step: a line that is rewritten in a terminal; elsewhere, a line for each large download."""

    def __init__(self, title: str) -> None:
        self.result = ""  # shown at the end
        self._title = title
        self._is_terminal = sys.stdout.isatty()
        self._start_s = time.monotonic()
        self._now = ""
        self._downloaded_mb = 0.0
        self._packages = 0

    def __enter__(self) -> "Progress":
        if self._is_terminal:
            self._rewrite()
        else:
            print(self._title, flush=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            self.fail()
            return
        parts = [
            self.result,
            f"{self._packages} package{'s' * (self._packages > 1)}" if self._packages else "",
            f"{self._downloaded_mb:.0f} MB downloaded" if self._downloaded_mb >= 1 else "",
            self._elapsed(),
        ]
        text = ", ".join(part for part in parts if part)
        print(f"\r\033[K{self._title}: {text}" if self._is_terminal else f"     {text}", flush=True)

    def show(self, line: str | None) -> None:
        """Take a line of pip; None updates the time."""
        line = (line or "").strip()
        if match := re.match(r"Downloading (\S+) \(([\d.]+) ([kMG]?)B\)", line):
            size_mb = float(match[2]) * {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}[match[3]]
            self._downloaded_mb += size_mb
            name = "-".join(match[1].rpartition("/")[2].split("-")[:2])
            self._now = f"downloading {name} ({size_mb:.0f} MB)" if size_mb >= 1 else f"downloading {name}"
            if size_mb >= LARGE_MB and not self._is_terminal:
                print(f"     {self._now}, {self._elapsed()}", flush=True)
        elif match := re.match(r"(?:Collecting|Processing) (\S+)", line):
            self._now = f"resolving {match[1].rpartition('/')[2]}"
        elif line.startswith("WARNING: Retrying"):
            self._now = "the package index does not answer, trying again"
        elif line.startswith("Building"):
            self._now = line[0].lower() + line[1:]
        elif line.startswith("Installing collected packages: "):
            count = line.count(",") + 1
            self._now = f"unpacking {count} package{'s' * (count > 1)}"
            if not self._is_terminal:
                print(f"     {self._now}, {self._elapsed()}", flush=True)
        elif line.startswith("Successfully installed "):
            self._packages = len(line.split()) - 2
        if self._is_terminal:
            self._rewrite()

    def fail(self) -> None:
        """End the line, so that a message can follow."""
        if self._is_terminal:
            with contextlib.suppress(OSError):
                print(flush=True)
            self._is_terminal = False

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._start_s:.0f} s"

    def _rewrite(self) -> None:
        text = ", ".join(part for part in (self._now, self._elapsed()) if part)
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{f'{self._title}: {text}'[:width]}", end="", flush=True)


if __name__ == "__main__":
    main()
