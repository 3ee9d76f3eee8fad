"""Progress: plain lines at intervals and at the end, and the rate in bars. (Width of bars: test_command_line.py.)"""

import re
from pathlib import Path

import pytest

from shardgen.generate.progress import ProgressDisplay
from shardgen.shard.job import Progress
from srshards.terminal import progress, text
from trainer.commands.upscale_display import UpscaleDisplay
from trainer.inference.upscale import Upscaled
from trainer.training.display import Display
from trainer.training.meter import Pace


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


FIGURES = "loss 0.0500, lr 4.0e-03"


def paced(steps_per_s: float, steps: int = 50, patches_per_step: int = 4) -> Pace:
    return Pace(0.05, 4e-3, steps_per_s * patches_per_step, 0.01, steps / steps_per_s, {}, {})


def test_trainer_reports_every_twenty_seconds_and_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display(first=10, total=15, patches_per_step=40) as display:
        display.pace(paced(steps_per_s=0.1, patches_per_step=40))
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
        f"step 12/15, 0.10 steps/s, {FIGURES}, 4 patches/s, data wait 1.0%, best 31.50 dB, 30 s left",
        "Step 12: a validation",
        f"step 14/15, 0.10 steps/s, {FIGURES}, 4 patches/s, data wait 1.0%, best 31.50 dB, 10 s left",
        f"step 15/15, 0.10 steps/s, {FIGURES}, 4 patches/s, data wait 1.0%, best 31.50 dB",
    ]


def test_trainer_reports_no_rate_before_it_is_measured(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """The first step compiles, and a validation follows the first pace."""
    with Display(first=0, total=20_000, patches_per_step=32) as display:
        clock.now_s += 25
        display.step()
        for _ in range(199):
            display.step()
        display.pace(paced(steps_per_s=640, steps=199, patches_per_step=32))
        clock.now_s += 20
        display.step()
    assert capsys.readouterr().err.splitlines() == [
        "step 1/20,000",
        f"step 201/20,000, 640.00 steps/s, {FIGURES}, 20480 patches/s, data wait 1.0%, 31 s left",
    ]


def test_trainer_reports_the_recent_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A pause of a second is smoothed, a change that lasts is shown within two minutes."""
    with Display(first=0, total=100_000, patches_per_step=4) as display:
        for rate, steps, laps in ((100, 50, 40), (1, 1, 1), (100, 50, 200), (2, 50, 5)):
            for _ in range(laps):
                display.pace(paced(rate, steps))
            clock.now_s += 20
            display.step()
    rates = [float(line.split(", ")[1].removesuffix(" steps/s")) for line in capsys.readouterr().err.splitlines()]
    assert rates == pytest.approx([100, 92.5, 100, 2.1], abs=0.1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(119, "119 s"), (120, "2 min"), (1973, "33 min"), (3569, "59 min"), (3570, "1 h 0 min"), (3900, "1 h 5 min")],
)
def test_long_remaining_times_have_hours_and_minutes(
    seconds: int, expected: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Display(first=0, total=seconds + 1, patches_per_step=4) as display:
        display.pace(paced(steps_per_s=1))
        clock.now_s += 20
        display.step()
    assert capsys.readouterr().err.endswith(f", {expected} left\n")


def test_bars_show_the_measured_rate_of_a_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (progress, text):
        monkeypatch.setattr(module, "shows_bars", lambda: True)
    for pace, shown in ((None, "?, ? steps/s"), (paced(steps_per_s=333), "00:03, 333.00 steps/s, " + FIGURES)):
        with Display(first=0, total=1000, patches_per_step=4) as display:
            if pace:
                display.pace(pace)
            display.step()
        drawn = re.split(r"[\r\n]+", capsys.readouterr().err.strip())
        assert re.search(rf" 1/1000 \[\d\d:\d\d<{re.escape(shown)}", drawn[-1]), drawn


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
        "0/2 photos, 40%, 0.04 megapixels/s, 2 min left",
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
