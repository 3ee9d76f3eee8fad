"""tools/install.py, with indexes of tiny packages on loopback."""

import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tools import install
from tools.install import InstallError, Progress

ON_X86 = pytest.mark.skipif(install.platform.machine() != "x86_64", reason="elsewhere, the default index is used")


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served: `default/`, pip's index, and `cpu/`, PyTorch's; the working directory of `install`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/default")
    monkeypatch.setattr(install, "CPU_INDEX", f"{url}/cpu")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("torch==1.0\n")
    wheel(tmp_path / "cpu/torch", "torch", "1.0+cpu", "__version__ = '1.0+cpu'\ncuda = None\n")
    wheel(tmp_path / "default/torch", "torch", "1.0", "__version__ = '1.0+cu130'\ncuda = '13.0'\n", "needed")
    wheel(tmp_path / "default/torch", "torch", "2.0", "__version__ = '2.0+cu130'\ncuda = '13.0'\n", "needed")
    wheel(tmp_path / "default/needed", "needed", "1.0")
    wheel(tmp_path / "default/other", "other", "1.0", "", "torch")
    yield tmp_path
    server.shutdown()
    server.server_close()


def wheel(folder: Path, name: str, version: str, text: str = "", requires: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", "")
        file.writestr(f"{name}/version.py", text)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@ON_X86
@pytest.mark.slow
def test_builds_of_pytorch(indexes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the build for this machine, another one, the same again, and one whose index is gone."""
    venv = Path("venv")

    def run(torch: str) -> str:
        install.install(venv, torch, False, [["other"]])
        return capsys.readouterr().out

    output = run("auto")
    assert "PyTorch for CPU (no NVIDIA GPU); for the other build: make install TORCH=cuda\n" in output
    assert "2/3  pip install torch\n" in output and "     torch 1.0+cpu, 1 package, " in output
    assert "3/3  pip install other\n" in output
    assert (venv / ".installed").read_text() == "cpu\n"

    assert "torch 1.0+cu130, 2 packages, " in run("cuda")  # also what it requires
    assert (venv / ".installed").read_text() == "cuda\n"

    output = run("auto")
    assert "PyTorch for CUDA (as before)" in output and "torch 1.0+cu130, " in output
    assert (venv / ".installed").read_text() == "cuda\n"

    shutil.rmtree(indexes / "cpu")
    output = run("cpu")
    assert "/cpu does not answer. From pip's default index, PyTorch may be a build for CUDA.\n" in output
    assert "torch 1.0+cu130, which is not a build for CPU, " in output

    message = r"^pip reached no package index that has this package; check the network (.|\n)* pip said:\nERROR: "
    with pytest.raises(InstallError, match=message):
        install.install(venv, "auto", True, [["missing"]])
    (indexes / "constraints.txt").write_text("torch==3.0\n")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(InstallError, match=message):
        run("auto")
    assert not (venv / ".installed").exists()


@pytest.mark.parametrize(("build", "machine"), [("cuda", "x86_64"), ("cpu", "aarch64")])
def test_the_default_index_is_used(build: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: machine)
    monkeypatch.setattr(install, "answers", lambda url: pytest.fail(f"asked for {url}"))
    assert install.torch_options(build) == []


def test_a_silent_index_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/torch/"
        monkeypatch.setattr(install, "ANSWER_S", 0.1)
        assert not install.answers(url)
        monkeypatch.setattr(install, "ANSWER_S", 60.0)
        monkeypatch.setattr(install, "GIVE_UP_S", 0.1)
        assert not install.answers(url)


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.NEEDED_BYTES, "cpu", 10**18)
    message = r"venv needs 1000000000 GB for the installation, but only [\d.]+ GB are free; free some space, or pass"
    with pytest.raises(InstallError, match=message):
        install.install(tmp_path / "venv", "cpu", False, [])
    assert not (tmp_path / "venv").exists()


def test_space_is_looked_up_where_folders_are_still_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.NEEDED_BYTES, "cpu", 10**18)
    with pytest.raises(InstallError, match="a/b/venv needs 1000000000 GB for the installation"):
        install.install(tmp_path / "a/b/venv", "cpu", False, [])


@pytest.mark.parametrize("venv", ["file", "file/venv"])
def test_a_file_in_the_place_of_the_environment_is_refused(venv: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=f"^{tmp_path}/file is not a folder, .* pass another one as VENV="):
        install.install(tmp_path / venv, "cpu", False, [])


def test_errors_of_the_file_system_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".installed").mkdir()  # cannot be read as a file, as what belongs to others
    monkeypatch.setattr(sys, "argv", ["install", str(tmp_path), "x"])
    with pytest.raises(SystemExit) as exit_info:
        install.main()
    assert exit_info.value.code == 2 and capsys.readouterr().err == f"Error: {tmp_path}/.installed: Is a directory\n"


def test_an_unknown_build_in_the_stamp_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".installed").write_text("unknown\n")
    (tmp_path / "bin").mkdir()
    for name in ("python", "pip"):
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    install.install(tmp_path, "auto", True, [])
    assert "PyTorch for CUDA (an NVIDIA GPU)" in capsys.readouterr().out
    assert (tmp_path / ".installed").read_text() == "cuda\n"


def test_output_that_is_not_utf_8_is_read() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'ERROR: caf\xe9\n'); sys.exit(1)"
    with pytest.raises(InstallError, match="ERROR: caf\N{REPLACEMENT CHARACTER}"):
        install.run([sys.executable, "-c", code], Progress("title"))


def test_a_disk_that_fills_is_reported() -> None:
    code = "print('ERROR: [Errno 28] No space left on device'); raise SystemExit(1)"
    with pytest.raises(
        InstallError, match=r"^the disk is full; free some space, and run .* said:\nERROR: \[Errno 28\]"
    ):
        install.run([sys.executable, "-c", code], Progress("title"))


def test_other_failures_show_the_last_output() -> None:
    code = "print('first'); print(*range(10)); print(*['more'] * 9, sep='\\n'); raise SystemExit(1)"
    with pytest.raises(
        InstallError, match=r"after a change, run the same command again. The output was:\n0 1 .* 9(\nmore){9}$"
    ):
        install.run([sys.executable, "-c", code], Progress("title"))


def test_a_python_without_venv_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    version = "{}.{}".format(*sys.version_info)
    with pytest.raises(InstallError, match=f"cannot create virtual .* run `apt install python{version}-venv` as root"):
        install.install(tmp_path / "venv", "auto", False, [])


LINES = (
    "WARNING: Retrying (Retry(total=4, ...)) after connection broken by ...",
    "Collecting ray==2.60.0",
    "  Downloading ray-2.60.0-cp311-cp311-manylinux2014_x86_64.whl (68.4 MB)",
    "Collecting click",
    "  Downloading click-8.5.1-py3-none-any.whl (102 kB)",
    "Installing collected packages: click, ray",
    "Successfully installed click-8.5.1 ray-2.60.0",
)


def test_progress_in_a_file_has_large_downloads(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("1/1  pip install ray") as progress:
        for line in LINES:
            progress.show(line)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[0] or line for line in lines] == [
        "1/1  pip install ray",
        "     downloading ray-2.60.0 (68 MB)",
        "     unpacking 2 packages",
        "     2 packages, 69 MB downloaded",
    ]


def test_progress_in_a_terminal_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    with Progress("1/1  pip install ray") as progress:
        for line in (*LINES, None):
            progress.show(line)
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and output.endswith("\n")
    states = output.split("\r\033[K")[1:-1]
    assert max(map(len, states)) <= 49
    assert any("downloading click-8.5.1" in state for state in states)
    assert any("the package index does not" in state for state in states)
    assert any("resolving ray==2.60.0, " in state for state in states)
