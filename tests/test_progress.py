"""Progress when stderr is not a terminal: plain lines at intervals and at the end. (Bars: test_command_line.py.)"""

import pytest

from shardgen.generate.progress import ProgressDisplay
from shardgen.shard.job import Progress
from srshards.terminal import progress
from trainer.training.display import Display


class Clock:
    """A clock that tests set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    monkeypatch.setattr(progress, "shows_bars", lambda: False)
    return clock


def test_generator_reports_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(2000) as display:
        for _ in range(5):
            clock.now_s += 4
            display.report(Progress(200, 1, 40_000_000))
        assert display.elapsed_s == 20 and display.done == Progress(1000, 5, 200_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "600/2,000 photos, 50 photos/s, 10 MB/s, 3 failed, 28 s left",
        "1,000/2,000 photos, 50 photos/s, 10 MB/s, 5 failed, 20 s left",
    ]


def test_generator_reports_completion_once_without_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(24, "samples") as display:
        clock.now_s += 2
        display.report(Progress(24, 0, 4_000_000))
    assert capsys.readouterr().err == "24/24 samples, 12 samples/s, 2 MB/s\n"


def test_failed_runs_report_no_completion(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), ProgressDisplay(24):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


def test_trainer_reports_every_twenty_seconds_and_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display(first=10, total=15) as display:
        clock.now_s += 19
        display.step()
        display.best(31.5)
        clock.now_s += 1
        display.step()
        display.say("Step 12: a validation")
        for _ in range(3):
            clock.now_s += 10
            display.step()
    assert capsys.readouterr().err.splitlines() == [
        "step 12/15, 0.10 steps/s, best 31.50 dB, 30 s left",
        "Step 12: a validation",
        "step 14/15, 0.10 steps/s, best 31.50 dB, 10 s left",
        "step 15/15, 0.10 steps/s, best 31.50 dB, 0 s left",
    ]
