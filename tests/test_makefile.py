"""The Makefile, as far as it can be tested without a second virtual environment."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import shell_environment

ROOT = Path(__file__).parent.parent


def make(*args: str) -> str:
    result = run_make(*args)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_make(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *args], cwd=ROOT, env=shell_environment(), capture_output=True, text=True)


def test_help_lists_every_target() -> None:
    text = make()
    assert text == make("help")
    targets = """help install demo shards test test-quick test-scale test-peers lint format bench bench-peers gpu
        bench-scale drill docs diagram release-check completion clean"""
    for target in targets.split():
        assert f"  make {target} " in text


def test_make_shards_passes_settings_to_generate() -> None:
    settings = ["SCALES=2 4", "INPUT=my photos", "OUTPUT=out", "SIZE=256", "SAMPLE=0.1"]
    settings += ["METHOD=area", "CODEC=png", "WORKERS=3", "EXCLUDE=my list.txt", "VAL=my set"]
    command = make("-n", "shards", *settings)
    assert (
        'python -m shardgen generate -i "my photos" -o "out" -s 2 4 --size 256 --sample 0.1 --method area --codec png '
        '--workers 3 --exclude "my list.txt" --val "my set" --auto'
    ) in " ".join(command.split())


def test_unknown_settings_are_rejected() -> None:
    result = run_make("-n", "shards", "SCALE=2", "SIZE=64")
    assert result.returncode == 2 and result.stdout == ""
    assert "unknown setting SCALE=; the settings are PYTHON VENV PEERS TORCH SCALES OUTPUT INPUT" in result.stderr


@pytest.mark.parametrize("name", ["VENV", "PEERS"])
def test_environments_with_a_space_in_their_path_are_refused(name: str, tmp_path: Path) -> None:
    result = run_make("-n", "install", f"{name}={tmp_path}/my venv")
    assert result.returncode == 2 and result.stdout == ""
    assert f"{name}={tmp_path}/my venv contains a space; pass a path without" in result.stderr


def test_completion_in_a_folder_with_a_space_in_its_path(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    (clone / ".venv").mkdir(parents=True)
    (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for name in ("pyproject.toml", "setup.py", "constraints.txt", ".venv/.installed"):
        (clone / name).touch()
    command = ["make", "--silent", "-f", str(ROOT / "Makefile"), "completion"]
    environment = {**shell_environment(), "SHELL": "/bin/bash", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    script = clone / ".venv/completion/shardgen.bash"
    assert f"source '{script}'" in result.stdout and "_SHARDGEN_COMPLETE=bash_complete" in script.read_text()


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_make_gpu_without_a_gpu_ends_at_once() -> None:
    result = run_make("gpu", "VENV=nowhere")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("this machine has no NVIDIA GPU, which make gpu needs\nmake: ")
    assert not (ROOT / "nowhere").exists()


@pytest.mark.parametrize("can_import", [True, False])
def test_make_gpu_installs_nothing_that_the_interpreter_has(can_import: bool, tmp_path: Path) -> None:
    """With a stand-in for the GPU, and one for the interpreter."""
    python, makefile = tmp_path / "python", tmp_path / "Makefile"
    python.write_text(f"""#!/bin/sh
case "$*" in
  *"import benchmarks"*) {"exit 0" if can_import else 'echo "No module named torch" >&2; exit 1'} ;;
  *bench_gpu*) echo "ran $*" ;;
  *) exit 1 ;;
esac
""")
    python.chmod(0o755)
    makefile.write_text((ROOT / "Makefile").read_text().replace("/dev/nvidia[0-9]*", "/dev/null"))
    result = run_make("-f", str(makefile), "gpu", f"PYTHON={python}", "INPUT=my photos", f"VENV={tmp_path}/venv")
    if can_import:
        assert result.returncode == 0 and result.stdout == "ran -m benchmarks.bench_gpu --photos my photos\n"
    else:
        assert result.returncode == 2 and result.stdout.startswith(f"{python} cannot be used: No module named torch\n")
        assert f"{tmp_path}/venv/.installed] Error 1" in result.stderr


def test_make_shards_without_input_uses_ost_or_the_sample_photos(tmp_path: Path) -> None:
    """In another folder, because a clone may have OST."""
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    command = make("-C", str(tmp_path), "-n", "shards")
    assert "colour photographs of scikit-image" in command
    assert '-i "build/sample_photos" -o "shards" -s 4' in " ".join(command.split())
    (tmp_path / "OST").mkdir()
    command = make("-C", str(tmp_path), "-n", "shards")
    assert "colour photographs of scikit-image" not in command
    assert '-i "OST" -o "shards" -s 4' in " ".join(command.split())


def test_demo_says_what_it_does_and_what_to_do_next() -> None:
    lines = [line for line in make("-n", "demo").splitlines() if line.startswith("echo")]
    output = subprocess.run(["sh", "-c", "\n".join(lines)], capture_output=True, text=True).stdout
    assert output.startswith("From 9 sample photos to an upscaled one, in build/demo:\n")
    assert output.index("about 3 minutes") < output.index("1/5  Shards") < output.index("5/5  Reports")
    found = output[output.index("Done.") :]
    for name in ("coffee_4x_compare.png", "shards.html", "training.html"):
        assert f"  build/demo/{name} " in found
    assert [line.split()[:4] for line in found.splitlines()[-3:]] == [
        ["make", "shards", "INPUT=~/photos"],
        [".venv/bin/python", "-m", "trainer", "--shards"],
        [".venv/bin/python", "-m", "trainer", "upscale"],
    ]


def test_an_invalid_build_of_pytorch_is_refused(tmp_path: Path) -> None:
    result = run_make("install", f"VENV={tmp_path}/venv", "TORCH=gpu")
    assert result.returncode == 2 and not (tmp_path / "venv").exists()
    assert result.stderr.startswith("Error: TORCH=gpu: expected cpu or cuda, or auto (the default: cuda if there is")


@pytest.mark.parametrize(("torch", "installs"), [("", False), ("cpu", False), ("auto", False), ("cuda", True)])
def test_another_build_of_pytorch_is_installed_on_request(torch: str, installs: bool, tmp_path: Path) -> None:
    (tmp_path / ".installed").write_text("cpu\n")
    settings = [f"TORCH={torch}"] if torch else []
    assert (f'tools.install --torch "{torch}"' in make("-n", "install", f"VENV={tmp_path}", *settings)) == installs


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_default_build_of_pytorch_follows_the_gpu(has_gpu: bool, tmp_path: Path) -> None:
    """With a file instead of the devices, and a stand-in for nvidia-smi, which prints to stdout if the driver fails."""
    smi, makefile = tmp_path / "nvidia-smi", tmp_path / "Makefile"
    smi.write_text(f"#!/bin/sh\necho '{'GPU 0: NVIDIA' if has_gpu else 'NVIDIA-SMI has failed'}'\n")
    smi.chmod(0o755)
    text = (ROOT / "Makefile").read_text().replace("/dev/nvidia[0-9]*", str(tmp_path / "none"))
    makefile.write_text(text.replace("nvidia-smi -L", f"{smi} -L"))
    command = make("-f", str(makefile), "-n", "install", f"VENV={tmp_path}/venv")
    assert ("--gpu" in command) == has_gpu
    makefile.write_text(text.replace(str(tmp_path / "none"), str(smi)))
    assert "--gpu" in make("-f", str(makefile), "-n", "install", f"VENV={tmp_path}/venv")


def test_old_pythons_are_refused(tmp_path: Path) -> None:
    """With a stand-in, whose version the command of the Makefile reads."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9)\n${{2#import sys; }}"\n'
    )
    python.chmod(0o755)
    result = run_make("install", f"PYTHON={python}", f"VENV={tmp_path}/venv")
    assert result.returncode == 2 and not (tmp_path / "venv").exists()
    assert result.stderr.startswith("Python 3.10 or newer is required; pass its name, e.g. make PYTHON=python3.12\n")
