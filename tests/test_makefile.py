"""The Makefile, as far as it can be tested without a second virtual environment."""

import subprocess
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
    tests = "test test-quick test-scale test-peers"
    others = "drill docs lint format bench bench-peers gpu bench-scale completion clean"
    for target in f"help install demo shards {tests} {others}".split():
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
    assert "unknown setting SCALE=; the settings are PYTHON VENV PEERS SCALES OUTPUT INPUT" in result.stderr


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
        assert result.returncode == 2 and result.stdout == f"{python} cannot be used: No module named torch\n"
        assert f"{tmp_path}/venv/.installed] Error 1" in result.stderr


def test_make_shards_without_input_uses_the_sample_photos() -> None:
    if (ROOT / "OST").exists():
        pytest.fail("this test requires that ./OST does not exist: move it away")
    command = make("-n", "shards")
    assert "colour photographs of scikit-image" in command
    assert '-i "build/sample_photos" -o "shards" -s 4' in " ".join(command.split())
