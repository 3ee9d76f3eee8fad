"""Reading while a run writes: what is missing or half there is not broken, and the run is to be waited for."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import SMALL, all_files, generate, run_cli, trainer

from srshards.format import Address
from srshards.storage.output_lock import locked

LOCK = ".shardgen.lock"


@pytest.fixture
def mine(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards, without a lock file."""
    return Path(shutil.copytree(shards, tmp_path / "mine", ignore=shutil.ignore_patterns(LOCK)))


@pytest.fixture
def being_made(mine: Path) -> Iterator[Path]:
    """Shards that a run makes again at 2x, and has not touched at 3x."""
    with locked(mine):
        (mine / "scale_2x/manifest.json").unlink()
        for path in mine.glob("scale_2x/train-000000.*"):
            path.unlink()
        yield mine


@pytest.mark.parametrize("folder", ["", "scale_2x", "scale_3x"])
@pytest.mark.parametrize("fix", [[], ["--fix"]])
def test_verify_waits_for_a_run(folder: str, fix: list[str], being_made: Path) -> None:
    files = all_files(being_made)
    done = run_cli("verify", being_made / folder, *fix)
    writing = f"shardgen run is writing to {being_made}{'.' if fix else ':'}"
    assert done.returncode == 2 and writing in done.stderr and "ait until it has ended" in done.stderr
    assert "broken" not in done.stderr and all_files(being_made) == files


@pytest.mark.parametrize("fix", [[], ["--fix"]])
def test_verify_knows_the_run_from_inside_the_folder(
    fix: list[str], being_made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(being_made / "scale_2x")
    done = run_cli("verify", ".", *fix)
    assert done.returncode == 2 and f"shardgen run is writing to {being_made}" in done.stderr
    assert not (being_made / "scale_2x" / LOCK).exists()


@pytest.mark.parametrize(
    "words",
    [
        "inspect {}",
        "inspect {}/scale_2x",
        "preview {}/scale_2x -o {out}",
        "report {} -o {out}",
        "unpack {} -o {out}",
    ],
)
def test_what_has_no_manifest_yet_is_waited_for(words: str, being_made: Path, tmp_path: Path) -> None:
    done = run_cli(*words.format(being_made, out=tmp_path / "out").split())
    assert done.returncode == 2
    assert done.stderr == f"Error: a shardgen run is writing to {being_made}: wait until it has ended\n"


def test_a_report_does_not_advise_to_remove_what_is_being_made(mine: Path, tmp_path: Path) -> None:
    with locked(mine):
        (mine / "scale_2x/train-000000.tar").unlink()
        done = run_cli("report", mine, "-o", tmp_path / "report.html")
    assert done.returncode == 1 and "--fix" not in done.stderr
    assert done.stderr.endswith(f"But a shardgen run is writing to {mine}: wait until it has ended.\n")


def test_a_first_run_is_waited_for(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "scale_2x").mkdir()
        for command, folder in (("verify", ""), ("inspect", "scale_2x")):
            done = run_cli(command, tmp_path / folder)
            assert done.returncode == 2 and f"a shardgen run is writing to {tmp_path}: wait" in done.stderr


def test_training_waits_for_a_run(being_made: Path, tmp_path: Path) -> None:
    done = trainer("--shards", being_made / "scale_2x", *SMALL, "--out", tmp_path / "runs")
    what = f"a shardgen run is writing to {being_made}: wait until it has ended"
    assert (done.code, done.err) == (2, f"Error: --shards {being_made / 'scale_2x'}: {what}\n")


def test_what_is_finished_is_read_while_another_scale_is_made(being_made: Path) -> None:
    assert run_cli("inspect", being_made / "scale_3x").returncode == 0


def test_verify_says_that_a_run_came_between(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardgen.inspection import verify

    def found(tar: Address, *rest: object) -> bytes:
        with locked(mine):
            return b"another shard"

    monkeypatch.setattr(verify, "_read_tar", found)
    done = run_cli("verify", mine, "--workers", 1)
    assert done.returncode == 1
    assert done.stderr == f"Error: a generate run wrote to {mine} during the check: run verify again\n"


def test_what_a_killed_run_left_is_broken(mine: Path) -> None:
    with locked(mine):
        (mine / "scale_2x/manifest.json").unlink()
    done = run_cli("verify", mine)
    assert done.returncode == 1 and "manifest.json: missing: generate did not finish" in done.stderr


def test_verify_leaves_nothing_behind(mine: Path, photos: Path) -> None:
    files = all_files(mine)
    assert run_cli("verify", mine).returncode == 0 and all_files(mine) == files
    generate(photos, mine, "-s", 2, 3, "--shard-bytes", "300KB")
    assert run_cli("verify", mine).returncode == 0 and all_files(mine) == {*files, LOCK}
