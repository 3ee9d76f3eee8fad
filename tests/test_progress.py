"""Progress when stderr is not a terminal: plain lines at intervals and at the end. (Bars: test_command_line.py.)"""

from pathlib import Path

import pytest

from shardgen.generate.progress import ProgressDisplay
from shardgen.shard.job import Progress
from srshards.terminal import progress
from trainer.commands.upscale_display import UpscaleDisplay
from trainer.inference.upscale import Upscaled
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
        display.best("31.50 dB")
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


def test_upscale_reports_every_twenty_seconds_within_a_photo(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    sizes, result = ((10, 10), (20, 20)), Path("a_2x.png")
    with UpscaleDisplay([6_000_000, 3_000_000]) as display:
        for share in (0.25, 0.5, 0.1, 0.6):  # 0.1: tiles had to be smaller
            clock.now_s += 20
            display.progressed(0, share)
        display.progressed(0, 1)
        display.wrote(Upscaled(Path("a.png"), result, None, *sizes, 12.3, replaced=True, compare_replaced=False))
        clock.now_s += 20
        display.progressed(1, 0.5)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "0/2 photos, 17%, 0.07 megapixels/s, 100 s left",
        "0/2 photos, 33%, 0.07 megapixels/s, 80 s left",
        "0/2 photos, 40%, 0.04 megapixels/s, 120 s left",
        "1/2 photos, 83%, 0.07 megapixels/s, 20 s left",
    ]
    assert printed.out == "a_2x.png  10 x 10 to 20 x 20 px in 12.3 s, replaced the existing file\n"


def test_upscale_shows_no_share_of_photos_without_a_readable_header(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with UpscaleDisplay([0]) as display:
        clock.now_s += 20
        display.progressed(0, 1)
    assert capsys.readouterr().err == "1/1 photos, 0.00 megapixels/s\n"
