"""Reading and writing at the same time: incomplete shards are not reported as broken, open ones are not replaced."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL, all_files, generate, hashes, run_cli, trainer

import srshards
from srshards.format import Address
from srshards.loader import open_shards
from srshards.storage.output_lock import locked
from trainer.training.learner import Learner

LOCK = ".shardgen.lock"


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards without a lock file, which tests may change."""
    return Path(shutil.copytree(shards, tmp_path / "copy", ignore=shutil.ignore_patterns(LOCK)))


@pytest.fixture
def being_written(copy: Path) -> Iterator[Path]:
    """Shards that a run is regenerating at 2x; those at 3x are unchanged."""
    with locked(copy):
        (copy / "scale_2x/manifest.json").unlink()
        for path in copy.glob("scale_2x/train-000000.*"):
            path.unlink()
        yield copy


@pytest.mark.parametrize("folder", ["", "scale_2x", "scale_3x"])
@pytest.mark.parametrize("fix", [[], ["--fix"]])
def test_verify_reports_a_running_generate(folder: str, fix: list[str], being_written: Path) -> None:
    files = all_files(being_written)
    result = run_cli("verify", being_written / folder, *fix)
    writing = f"shardgen run is writing to {being_written}; wait until it has finished"
    assert result.returncode == 2 and writing in result.stderr
    assert "broken" not in result.stderr and all_files(being_written) == files


@pytest.mark.parametrize("fix", [[], ["--fix"]])
def test_verify_detects_the_run_from_inside_the_folder(
    fix: list[str], being_written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(being_written / "scale_2x")
    result = run_cli("verify", ".", *fix)
    assert result.returncode == 2 and f"shardgen run is writing to {being_written}" in result.stderr
    assert not (being_written / "scale_2x" / LOCK).exists()


@pytest.mark.parametrize(
    "args",
    [
        "inspect {}",
        "inspect {}/scale_2x",
        "preview {}/scale_2x -o {out}",
        "report {} -o {out}",
        "unpack {} -o {out}",
    ],
)
def test_folders_without_a_manifest_yet_are_reported(args: str, being_written: Path, tmp_path: Path) -> None:
    result = run_cli(*args.format(being_written, out=tmp_path / "out").split())
    assert result.returncode == 2
    assert result.stderr == f"Error: a shardgen run is writing to {being_written}; wait until it has finished\n"


def test_report_does_not_recommend_deletion_during_a_run(copy: Path, tmp_path: Path) -> None:
    with locked(copy):
        (copy / "scale_2x/train-000000.tar").unlink()
        result = run_cli("report", copy, "-o", tmp_path / "report.html")
    assert result.returncode == 1 and "--fix" not in result.stderr
    assert result.stderr.endswith(
        f"The cause may be that a shardgen run is writing to {copy}; wait until it has finished.\n"
    )


def test_first_run_is_reported(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "scale_2x").mkdir()
        for command, folder in (("verify", ""), ("inspect", "scale_2x")):
            result = run_cli(command, tmp_path / folder)
            assert result.returncode == 2 and f"a shardgen run is writing to {tmp_path}; wait" in result.stderr


def test_training_reports_a_running_generate(being_written: Path, tmp_path: Path) -> None:
    result = trainer("--shards", being_written / "scale_2x", *SMALL, "--out", tmp_path / "runs")
    message = f"a shardgen run is writing to {being_written}; wait until it has finished"
    assert (result.code, result.err) == (2, f"Error: --shards {being_written / 'scale_2x'}: {message}\n")


def test_finished_scales_are_readable_during_a_run(being_written: Path) -> None:
    assert run_cli("inspect", being_written / "scale_3x").returncode == 0


def test_verify_detects_a_run_during_the_check(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardgen.inspection import verify

    def read_tar(tar: Address, *args: object) -> bytes:
        with locked(copy):
            return b"another shard"

    monkeypatch.setattr(verify, "_read_tar", read_tar)
    result = run_cli("verify", copy, "--workers", 1)
    assert result.returncode == 1
    assert result.stderr == f"Error: a run of shardgen wrote to {copy} during the check; run verify again\n"


def test_leftovers_of_killed_runs_are_broken(copy: Path) -> None:
    with locked(copy):
        (copy / "scale_2x/manifest.json").unlink()
    result = run_cli("verify", copy)
    assert result.returncode == 1 and "manifest.json: missing: generation did not finish" in result.stderr


def test_verify_leaves_nothing_behind(copy: Path, photos: Path) -> None:
    files = all_files(copy)
    assert run_cli("verify", copy).returncode == 0 and all_files(copy) == files
    generate(photos, copy, "-s", 2, 3, "--shard-bytes", "300KB")
    assert run_cli("verify", copy).returncode == 0 and all_files(copy) == {*files, LOCK}


# ---- while shards are open


@pytest.mark.parametrize("auto", [["--auto"], []])
def test_generate_does_not_replace_open_shards(auto: list[str], copy: Path, photos: Path) -> None:
    files = contents(copy)
    opened = srshards.open(copy / "scale_2x")
    args = ("generate", "-i", photos, "-o", copy, "-s", 2, "--size", 64, "--shard-bytes", "300KB", "--workers", 0)
    result = run_cli(*args, "--sample", 0.5, *auto)
    assert result.returncode == 2
    message = (
        f"{copy / 'scale_2x'} is open in another process, probably a training, and this run would replace or delete "
    )
    assert (
        message in result.stderr and "; wait until that process has exited, or pass another --output\n" in result.stderr
    )
    assert contents(copy) == files
    generate(photos, copy, "-s", 2, 3, 4, "--shard-bytes", "300KB")  # replaces nothing at 2x
    del opened
    generate(photos, copy, "-s", 2, "--shard-bytes", "300KB", "--sample", 0.5, "--force")


def test_killed_readers_release_the_shards(copy: Path, photos: Path) -> None:
    program = "import srshards, sys, time; s = srshards.open(sys.argv[1]); print(1, flush=True); time.sleep(99)"
    reader = subprocess.Popen([sys.executable, "-c", program, copy / "scale_2x"], stdout=subprocess.PIPE)
    try:
        assert reader.stdout and reader.stdout.readline() == b"1\n"
        args = ("-s", 2, "--shard-bytes", "300KB", "--sample", 0.5, "--force")
        assert "is open in another process" in generate(photos, copy, *args, expect=2).stderr
    finally:
        reader.kill()
        reader.communicate()
    generate(photos, copy, *args)


def test_shards_regenerated_while_open_are_not_reported_as_damaged(copy: Path, photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--shard-bytes", "300KB", "--codec", "png")
    opened = srshards.open(copy / "scale_2x")
    shutil.copytree(tmp_path / "other" / "scale_2x", copy / "scale_2x", dirs_exist_ok=True)
    message = f"not damaged: the shards in {copy / 'scale_2x'} were replaced by a run of shardgen with other settings"
    with pytest.raises(srshards.RunError, match=re.escape(message)):
        _ = opened[0].hr
    with pytest.raises(srshards.UsageError, match=re.escape(message)):
        opened.verify()
    with locked(copy):
        (copy / "scale_2x/manifest.json").unlink()
        with pytest.raises(srshards.RunError, match=f"not damaged: a shardgen run is writing to {copy}"):
            _ = opened[0].hr
    (copy / "scale_2x/train-000000.tar").unlink()
    with pytest.raises(srshards.RunError, match=f"`python -m shardgen verify {copy / 'scale_2x'} --fix`"):
        _ = opened[0].hr


def test_training_reports_that_its_shards_were_regenerated(
    copy: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--shard-bytes", "300KB", "--codec", "png")
    real = Learner.step

    def step(learner: Learner, index: int, batches: Iterator[Any]) -> Any:
        if index == 1:
            shutil.copytree(tmp_path / "other" / "scale_2x", copy / "scale_2x", dirs_exist_ok=True)
        return real(learner, index, batches)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(open_shards, "_MAX_OPEN", 1)
    result = trainer("--shards", copy / "scale_2x", *SMALL, "--steps", 30, "--out", tmp_path / "runs")
    assert result.code == 1 and "were replaced by a run of shardgen with other settings" in result.err
    assert "--fix" not in result.err


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


# ---- a new version of the package


def test_a_new_version_keeps_finished_shards(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while they are open: it is only recorded, in the manifest and the cards."""
    generate(photos, tmp_path, "-s", 2)
    before = hashes(tmp_path)
    opened = srshards.open(tmp_path / "scale_2x")
    monkeypatch.setattr("shardgen.generate.manifest.__version__", "99.0.0")
    assert "shards are up to date" in generate(photos, tmp_path, "-s", 2).stdout
    after = hashes(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"README.md", "scale_2x/README.md", "scale_2x/manifest.json"} and before.keys() == after.keys()
    assert '"version": "99.0.0"' in (tmp_path / "scale_2x/manifest.json").read_text()
    assert opened[0].hr.any()
