"""Regenerate the files in this folder with the code of the commits that first wrote them.

`version_1` to `version_3` are shards in each format version. `run` is a training on `version_1` that was killed after
step 4 of 6; it also contains the log of an uninterrupted one. `tests/test_old_files.py` reads them with current code.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
VERSION_1 = "e5e836e"  # the last commit that wrote format version 1
VERSION_2 = "ddb797a"
VERSION_3 = "14254fb"  # 1.0.0
GENERATE = ["-s", "2", "--size", "32", "--val-fraction", "0.25", "--workers", "0", "--auto"]
TRAIN = ["--model", "ultra_lite", "--patch-size", "16", "--batch-size", "2", "--steps", "6", "--val-every", "2"]
KILLED_AT_STEP_4 = """
import os, signal, sys
from trainer.training import record
from trainer.__main__ import run

save = record.save_state

def save_and_end(path, data, progress, tensors):
    save(path, data, progress, tensors)
    if progress.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)

record.save_state = save_and_end
run()
"""


def main() -> None:
    sys.path.insert(0, str(HERE.parent))
    from helpers import make_photos

    with tempfile.TemporaryDirectory() as scratch:
        photos = make_photos(Path(scratch, "photos"), 8, (40, 52))
        for version, commit, options in (
            ("version_1", VERSION_1, ["--shard-bytes", "40KB"]),
            (
                "version_2",
                VERSION_2,
                ["--shard-bytes", "20KB", "--codec", "png", "--degradation", "realesrgan", "--variants", "2"],
            ),
            ("version_3", VERSION_3, ["--shard-bytes", "20KB", "--codec", "tlc", "--no-up"]),
        ):
            shutil.rmtree(HERE / version, ignore_errors=True)
            code = _checkout(Path(scratch, version), commit)
            output = ["-i", str(photos), "-o", str(HERE / version)]
            _python(code, "-m", "shardgen", "generate", *output, *GENERATE, *options)
            for name in (".shardgen.lock", "processing_stats.json", "README.md", "scale_2x/README.md"):
                (HERE / version / name).unlink(missing_ok=True)
        shutil.rmtree(HERE / "run", ignore_errors=True)
        # With a relative path, because the run stores it in its config.yaml.
        code = Path(scratch, "version_2")
        shutil.copytree(HERE / "version_1" / "scale_2x", code / "scale_2x")
        train = ["--shards", "scale_2x", *TRAIN, "--device", "cpu", "--workers", "0", "--out", "runs"]
        _python(code, "-m", "trainer", *train, "--run", "whole")
        _python(code, "-c", KILLED_AT_STEP_4, *train, "--save-every", "4", "--run", "run", expect=-9)
        runs = code / "runs"
        (HERE / "run").mkdir()
        for name in ("config.yaml", "plan.json", "journal.jsonl", "state.pt"):
            shutil.copy(runs / "run" / name, HERE / "run" / name)
        shutil.copy(runs / "whole" / "journal.jsonl", HERE / "run" / "journal-of-the-whole.jsonl")


def _checkout(folder: Path, commit: str) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=HERE.parent.parent, check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def _python(code: Path, *args: str, expect: int = 0) -> None:
    result = subprocess.run([sys.executable, *args], cwd=code, env={"PYTHONPATH": str(code)})
    assert result.returncode == expect, result.returncode


if __name__ == "__main__":
    main()
