"""A few cases of each fault: no lost samples, partial files, silent errors or crashes."""

import json
import random
from pathlib import Path

import pytest

from srshards.shards.tar_index import dump_index, load_index
from tests.drill import corruption
from tests.drill.line import drill_line
from tests.drill.lines import LINES
from tests.drill.record import Tally
from tests.drill.session import Session
from tests.drill.table import page, summary


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
@pytest.mark.timeout(1000)
def test_a_few_cases_of_each_fault_are_clean(name: str) -> None:
    found = drill_line(name, LINES[name].short, seed=1)
    assert found["clean"], (
        f"python -m tests.drill --only {name} --short --seed {found['seed']}\n{json.dumps(found, indent=1)}"
    )
    assert found["times"] == LINES[name].short


def shift_index(folder: Path, rng: random.Random) -> str:
    """Shift an index by one, so that each sample has the pixels of the one before."""
    path = folder / "train-000000.idx"
    samples = load_index(path)
    shifted = [
        [member._replace(offset=other.offset, size=other.size) for member, other in zip(*pair, strict=True)]
        for pair in zip(samples, [samples[-1], *samples[:-1]], strict=True)
    ]
    path.write_bytes(dump_index(shifted))
    return "index shifted by one sample"


@pytest.mark.slow
def test_a_trainer_that_does_not_check_the_index_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, "damage_folder", shift_index)
    monkeypatch.setattr(corruption, "_COMMAND_EVERY", 10**6)
    monkeypatch.setattr(corruption, "_SETS", [("--codec", "npy")])
    for is_checked in (True, False):
        if not is_checked:
            monkeypatch.setattr("srshards.shards.check_shard._check_index", lambda *_: None)
        session = Session(2, 0, tmp_path / str(is_checked))
        session.scratch.mkdir()
        corruption.corrupt(session)
        assert session.tally.is_clean == is_checked and session.tally.silent == 2 * (not is_checked), session.tally


def test_the_page_lists_failures() -> None:
    tally = Tally(times=2, recovered=1, samples_lost=3, failures=["case 1: samples_lost: x is missing"])
    found = {"fault": "a fault", "seed": 7, "seconds": 1.0, **tally.as_dict(), "clean": tally.is_clean}
    assert not tally.is_clean and "NOT CLEAN" in summary("x", found)
    text = page({"x": found}, "a machine")
    assert "| a fault | 2 | 1 | 0 | 0 | 3 | 0 | 0 | 0 | 1 |" in text and "`x` 7" in text
    assert "## Failures" in text and "- case 1: samples_lost: x is missing" in text


def test_a_fault_whose_process_exits_early_is_a_failure_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LINES, "dies", LINES["images-mutated"]._replace(where="nowhere.nothing"))
    found = drill_line("dies", 1, 0)
    assert not found["clean"] and found["crashed"] == 1 and "before its first case" in found["failures"][0]
