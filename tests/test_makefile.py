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
    targets = "help install demo shards test test-scale drill lint format bench gpu bench-scale completion clean"
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
    assert "unknown setting SCALE=; the settings are PYTHON VENV SCALES OUTPUT INPUT" in result.stderr


def test_make_shards_without_input_uses_the_sample_photos() -> None:
    if (ROOT / "OST").exists():
        pytest.fail("this test requires that ./OST does not exist: move it away")
    command = make("-n", "shards")
    assert "colour photographs of scikit-image" in command
    assert '-i "build/sample_photos" -o "shards" -s 4' in " ".join(command.split())
