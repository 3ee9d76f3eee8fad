"""The Makefile's promises, as far as they can be held without a second virtual environment."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def make(*args: str) -> str:
    done = tried(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tried(*args: str) -> subprocess.CompletedProcess[str]:
    """As from a shell, also where the tests themselves run under make."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *args], cwd=ROOT, env=env, capture_output=True, text=True)


def test_help_names_every_target() -> None:
    text = make()
    assert text == make("help")
    targets = "help install demo shards test test-scale drill lint format bench bench-gpu bench-scale completion clean"
    for target in targets.split():
        assert f"  make {target} " in text


def test_shards_passes_on_what_is_named() -> None:
    named = ["SCALES=2 4", "INPUT=my photos", "OUTPUT=out", "SIZE=256", "SAMPLE=0.1"]
    named += ["METHOD=area", "CODEC=png", "WORKERS=3", "EXCLUDE=my list.txt"]
    command = make("-n", "shards", *named)
    assert (
        'python -m shardgen generate -i "my photos" -o "out" -s 2 4 --size 256 --sample 0.1 --method area --codec png '
        '--workers 3 --exclude "my list.txt" --auto'
    ) in " ".join(command.split())


def test_a_name_that_there_is_not_is_refused() -> None:
    done = tried("-n", "shards", "SCALE=2", "SIZE=64")
    assert done.returncode == 2 and done.stdout == ""
    assert "unknown setting SCALE=; the settings are PYTHON VENV SCALES OUTPUT INPUT" in done.stderr


def test_shards_without_input_takes_the_sample_photos_and_says_so() -> None:
    if (ROOT / "OST").exists():
        pytest.fail("move ./OST away: the test is about what happens without it")
    command = make("-n", "shards")
    assert "colour photographs of scikit-image" in command
    assert '-i "build/sample_photos" -o "shards" -s 4' in " ".join(command.split())
