"""A few cases of each fault: no sample is lost, no partial file remains, no error is silent, nothing crashes."""

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
def test_a_few_of_each_fault(name: str) -> None:
    found = drill_line(name, LINES[name].short, seed=1)
    assert found["clean"], (
        f"python -m tests.drill --only {name} --short --seed {found['seed']}\n{json.dumps(found, indent=1)}"
    )
    assert found["times"] == LINES[name].short


def point_elsewhere(folder: Path, rng: random.Random) -> str:
    """An index that gives each sample the pixels of the one before."""
    path = folder / "train-000000.idx"
    samples = load_index(path)
    others = [samples[-1], *samples[:-1]]
    path.write_bytes(
        dump_index(
            [member._replace(offset=there.offset, size=there.size) for member, there in zip(mine, other, strict=True)]
            for mine, other in zip(samples, others, strict=True)
        )
    )
    return "an index that points elsewhere"


@pytest.mark.slow
def test_harm_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that believes every index trains on other samples' pixels, and the drill says so."""
    monkeypatch.setattr(corruption, "damage_folder", point_elsewhere)
    monkeypatch.setattr(corruption, "_COMMAND_EVERY", 10**6)
    monkeypatch.setattr(corruption, "_SETS", [("--codec", "npy")])
    for believes in (False, True):
        if believes:
            monkeypatch.setattr("srshards.shards.check_shard._check_index", lambda *_: None)
        session = Session(2, 0, tmp_path / str(believes))
        session.scratch.mkdir()
        corruption.corrupt(session)
        assert session.tally.is_clean != believes and session.tally.silent == 2 * believes, session.tally


def test_the_page_lists_failures() -> None:
    tally = Tally(times=2, recovered=1, samples_lost=3, failures=["case 1: samples_lost: x is missing"])
    found = {"fault": "a fault", "seed": 7, "seconds": 1.0, **tally.as_dict(), "clean": tally.is_clean}
    assert not tally.is_clean and "NOT CLEAN" in summary("x", found)
    text = page({"x": found}, "a machine")
    assert "| a fault | 2 | 1 | 0 | 0 | 3 | 0 | 0 | 0 | 1 |" in text and "`x` 7" in text
    assert "## Failures" in text and "- case 1: samples_lost: x is missing" in text


def test_a_line_that_dies_is_a_failure_that_names_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LINES, "dies", LINES["images-mutated"]._replace(where="nowhere.nothing"))
    found = drill_line("dies", 1, 0)
    assert not found["clean"] and found["crashed"] == 1 and "before its first case" in found["failures"][0]
