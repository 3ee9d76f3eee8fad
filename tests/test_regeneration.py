"""Reading while a run writes: what is missing or half there is not broken, and the run is to be waited for."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL, all_files, generate, run_cli, trainer

import srshards
from srshards.format import Address
from srshards.loader import batches
from srshards.storage.output_lock import locked
from trainer.training.learner import Learner

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
    assert done.stderr == f"Error: a shardgen run is writing to {being_made}: wait until it has finished\n"


def test_a_report_does_not_advise_to_remove_what_is_being_made(mine: Path, tmp_path: Path) -> None:
    with locked(mine):
        (mine / "scale_2x/train-000000.tar").unlink()
        done = run_cli("report", mine, "-o", tmp_path / "report.html")
    assert done.returncode == 1 and "--fix" not in done.stderr
    assert done.stderr.endswith(
        f"The cause may be that a shardgen run is writing to {mine}: wait until it has finished.\n"
    )


def test_a_first_run_is_waited_for(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "scale_2x").mkdir()
        for command, folder in (("verify", ""), ("inspect", "scale_2x")):
            done = run_cli(command, tmp_path / folder)
            assert done.returncode == 2 and f"a shardgen run is writing to {tmp_path}: wait" in done.stderr


def test_training_waits_for_a_run(being_made: Path, tmp_path: Path) -> None:
    done = trainer("--shards", being_made / "scale_2x", *SMALL, "--out", tmp_path / "runs")
    what = f"a shardgen run is writing to {being_made}: wait until it has finished"
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
    assert done.returncode == 1 and "manifest.json: missing: generation did not finish" in done.stderr


def test_verify_leaves_nothing_behind(mine: Path, photos: Path) -> None:
    files = all_files(mine)
    assert run_cli("verify", mine).returncode == 0 and all_files(mine) == files
    generate(photos, mine, "-s", 2, 3, "--shard-bytes", "300KB")
    assert run_cli("verify", mine).returncode == 0 and all_files(mine) == {*files, LOCK}


# ---- while somebody reads


@pytest.mark.parametrize("asks", [["--auto"], []])
def test_generate_replaces_nothing_that_is_open(asks: list[str], mine: Path, photos: Path) -> None:
    files = contents(mine)
    opened = srshards.open(mine / "scale_2x")
    words = ("generate", "-i", photos, "-o", mine, "-s", 2, "--size", 64, "--shard-bytes", "300KB", "--workers", 0)
    done = run_cli(*words, "--sample", 0.5, *asks)
    assert done.returncode == 2
    said = f"{mine / 'scale_2x'} is open in another process, probably a training, and this run would replace or delete "
    assert said in done.stderr and "Wait until that process has exited, or pass another --output." in done.stderr
    assert contents(mine) == files
    generate(photos, mine, "-s", 2, 3, 4, "--shard-bytes", "300KB")  # replaces nothing at 2x
    del opened
    generate(photos, mine, "-s", 2, "--shard-bytes", "300KB", "--sample", 0.5)


def test_a_killed_reader_is_not_waited_for(mine: Path, photos: Path) -> None:
    program = (
        f"import srshards, time; s = srshards.open({str(mine / 'scale_2x')!r}); print(1, flush=True); time.sleep(99)"
    )
    reader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert reader.stdout and reader.stdout.readline() == b"1\n"
        words = ("-s", 2, "--shard-bytes", "300KB", "--sample", 0.5)
        assert "is open in another process" in generate(photos, mine, *words, expect=2).stderr
    finally:
        reader.kill()
        reader.communicate()
    generate(photos, mine, *words)


def test_what_was_generated_again_under_a_reader_is_not_called_damaged(
    mine: Path, photos: Path, tmp_path: Path
) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--shard-bytes", "300KB", "--codec", "png")
    opened = srshards.open(mine / "scale_2x")
    shutil.copytree(tmp_path / "other" / "scale_2x", mine / "scale_2x", dirs_exist_ok=True)
    again = f"not damaged: the shards in, the shards in {mine / 'scale_2x'} were generated again with "
    with pytest.raises(srshards.RunError, match=re.escape(again)):
        _ = opened[0].hr
    with pytest.raises(srshards.UsageError, match=re.escape(again)):
        opened.verify()
    with locked(mine):
        (mine / "scale_2x/manifest.json").unlink()
        with pytest.raises(srshards.RunError, match=f"not damaged: a shardgen run is writing to {mine}"):
            _ = opened[0].hr
    (mine / "scale_2x/train-000000.tar").unlink()
    with pytest.raises(srshards.RunError, match=f"`python -m shardgen verify {mine / 'scale_2x'} --fix`"):
        _ = opened[0].hr


def test_a_training_says_that_its_shards_were_generated_again(
    mine: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--shard-bytes", "300KB", "--codec", "png")
    real = Learner.step

    def step(learner: Learner, index: int, batches: Iterator[Any]) -> Any:
        if index == 1:
            shutil.copytree(tmp_path / "other" / "scale_2x", mine / "scale_2x", dirs_exist_ok=True)
        return real(learner, index, batches)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(batches, "_MAX_OPEN_SHARDS", 1)
    done = trainer("--shards", mine / "scale_2x", *SMALL, "--steps", 30, "--out", tmp_path / "runs")
    assert done.code == 1 and "were generated again with other settings or photos" in done.err
    assert "--fix" not in done.err


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}
