"""The account of a run's wall-clock time, printed, logged and kept over resumes; and the interval of validations."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, Result, trainer, weights
from test_trainer_faults import on_step, terminate

from trainer.commands.wall_clock import wall_clock
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.training.account import PHASE_NAMES, Account
from trainer.training.agreement import Agreement
from trainer.training.cadence import MAX_SHARE, Cadence, widened

KEYS = [*PHASE_NAMES, "steps_share"]


class Clock:
    """A clock that the test sets. As `is_busy`, a GPU that computes until `busy_until_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.busy_until_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def is_busy(self) -> bool:
        return self.now_s < self.busy_until_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(clock: Clock, account: Account, *phases: tuple[Any, float]) -> None:
    for name, seconds in phases:
        with account.phase(name):
            clock.now_s += seconds


def seconds(account: Account) -> dict[str, float]:
    """Return the phases that took any time."""
    return {key.removesuffix("_s"): value for key, value in account.seconds().items() if value}


def test_time_is_booked_to_the_innermost_phase(clock: Clock) -> None:
    account = Account(clock=clock)
    spend(clock, account, ("rest", 1), ("steps", 2), ("data_wait", 4), ("validation", 8))
    assert account.is_starting_up and seconds(account) == {"start_up": 7, "validation": 8}
    account.end_start_up()
    assert math.isnan(account.steps_share), "there was no step after the start-up"
    with account.phase("steps"):
        clock.now_s += 10
        spend(clock, account, ("data_wait", 1))
        clock.now_s += 10
    clock.now_s += 3
    with account.phase("validation"):
        spend(clock, account, ("saving", 2))
        clock.now_s += 5
    expected = {"steps": 20, "data_wait": 1, "rest": 3, "validation": 8 + 5, "saving": 2, "start_up": 7}
    assert seconds(account) == expected and sum(expected.values()) == clock.now_s
    assert account.steps_share == 20 / (20 + 1 + 8), "up to the end of the last step"


def test_an_account_continues_that_of_the_run_before_it_was_resumed(clock: Clock) -> None:
    clock.now_s = 100.0
    account = Account({"steps_s": 30.0, "start_up_s": 5.0, "validation_s": 2.0}, start_s=90.0, clock=clock)
    assert account.earlier_s == 37 and account.steps_share == 30 / 32
    assert seconds(account) == {"steps": 30, "validation": 2, "start_up": 5 + 10}


def test_waits_hidden_behind_a_busy_gpu_are_steps(clock: Clock) -> None:
    account = Account(is_busy=clock.is_busy, clock=clock)
    account.end_start_up()
    clock.busy_until_s = 5.0
    spend(clock, account, ("data_wait", 2), ("rest", 2), ("data_wait", 3), ("rest", 1))
    assert seconds(account) == {"steps": 4, "data_wait": 3, "rest": 1}


def test_the_printed_line_has_all_shares(clock: Clock) -> None:
    account = Account({"start_up_s": 20.0}, clock=clock)
    account.end_start_up()
    spend(clock, account, ("steps", 160), ("data_wait", 10), ("steps", 0), ("validation", 6), ("saving", 4))
    line, advice = wall_clock(account).splitlines()
    assert line == (
        "Wall clock 3 min 20 s (20 s of it before it was resumed): steps 80.0%, data wait 5.0%, validation 3.0%, "
        "saving 2.0%, start-up 10.0%, rest 0.0%; from the first step to the last, steps 94.1%"
    )
    assert advice.startswith("To wait less for data, use shards with --codec npy")
    spend(clock, account, ("steps", 1000))
    assert "\n" not in wall_clock(account), "advice only for long waits"
    fresh = Account(clock=clock)
    clock.now_s += 2
    assert wall_clock(fresh).startswith("Wall clock 2 s: steps 0.0%") and "first step" not in wall_clock(fresh)


# ---- runs


def train(shards: Path, out: Path, *args: object, expect: int = 0) -> Result:
    result = trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, "--run", "r", *args)
    assert result.code == expect, result.err + result.out
    return result


def lines(out: Path, event: str) -> list[dict[str, Any]]:
    entries = map(json.loads, (out / "r" / "journal.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["event"] == event]


def validations(out: Path) -> list[int]:
    return [line["step"] for line in lines(out, "val")]


def intervals(out: Path) -> list[tuple[int, int]]:
    """Return the steps after which the interval of validations grew, and its new lengths."""
    return [(line["step"], line["val_every"]) for line in lines(out, "cadence")]


def total_s(line: dict[str, Any]) -> float:
    return sum(float(line[key]) for key in PHASE_NAMES)


@pytest.mark.slow
def test_a_run_logs_its_account_and_continues_it_when_resumed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("--steps", 8, "--val-every", 4)
    with monkeypatch.context() as patch:
        on_step(patch, 6, terminate)
        stopped = train(shards, tmp_path, *args, expect=143)
    assert "Wall clock " in stopped.err and "before it was resumed" not in stopped.err
    first = lines(tmp_path, "account")
    assert [line["step"] for line in first] == [4, 6] and all([*line][2:] == KEYS for line in first)
    assert all(line[key] > 0 for line in first for key in KEYS if key != "data_wait_s")
    assert 0 < total_s(first[0]) < total_s(first[1])
    kept = torch.load(tmp_path / "r" / "state.pt", weights_only=True)["progress"]["account"]
    assert first[0]["steps_s"] < kept["steps_s"] <= first[1]["steps_s"]
    resumed = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert " of it before it was resumed): steps " in resumed.out, resumed.out
    (last,) = lines(tmp_path, "account")[len(first) :]
    assert last["step"] == 8 and all(last[key] >= kept[key] for key in kept)
    assert last["start_up_s"] > kept["start_up_s"], "each start counts"
    assert 0 < last["steps_share"] < 1


@pytest.mark.slow
def test_validation_and_saving_have_phases_of_their_own(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock advances by a second in each validation and two in each save, and stands still otherwise."""
    clock = Clock()
    monkeypatch.setattr("trainer.training.run.Account", lambda earlier, start_s, busy: Account(earlier, 0, busy, clock))
    for target, seconds in (
        ("trainer.training.validation.Validation.run", 1.0),
        ("trainer.training.record.RunRecord.save", 2.0),
        ("trainer.training.learner.Learner.step", 10.0),
        ("srshards.PatchLoader.steps", 5.0),
    ):
        take(monkeypatch, target, clock, seconds)
    result = train(shards, tmp_path, "--steps", 4, "--val-every", 2, "--save-every", 1)
    last = lines(tmp_path, "account")[-1]
    assert {key: last[key] for key in PHASE_NAMES} == {
        **{"steps_s": 40.0, "data_wait_s": 0.0, "validation_s": 2.0, "saving_s": 8.0, "start_up_s": 5.0, "rest_s": 0.0}
    }
    assert last["steps_share"] == 40 / (40 + 1 + 6), "one validation and three saves are between steps"
    (lap,) = {line["patches_per_s"] for line in lines(tmp_path, "train")}
    assert lap == 4 / 10, "the throughput is that of the steps alone"
    assert "\nstep 4/4, 0.10 steps/s, loss " in result.err


def take(monkeypatch: pytest.MonkeyPatch, target: str, clock: Clock, seconds: float) -> None:
    """Patch a method so that each call takes this time."""
    owner, name = target.rsplit(".", 1)
    module, kind = owner.rsplit(".", 1)
    cls = getattr(__import__(module, fromlist=[kind]), kind)
    real: Callable[..., Any] = getattr(cls, name)

    def slow(*args: Any) -> Any:
        clock.now_s += seconds
        return real(*args)

    monkeypatch.setattr(cls, name, slow)


# ---- the interval of validations


@pytest.mark.parametrize(
    ("validation_s", "step_s", "expected"),
    [
        *((0.0, 0.1, [200, 200]), (0.4, 0.1, [200, 200]), (0.41, 0.1, [400, 400]), (1.6, 0.1, [800, 800])),
        *((3.0, 0.1, [800, 1600, 1600]), (1e9, 0.1, [800, 3200, 12800]), (1.0, 0.0, [800, 3200, 12800])),
    ],
)
def test_the_interval_doubles_while_validations_take_too_long(
    validation_s: float, step_s: float, expected: list[int]
) -> None:
    """But after one validation, it grows fourfold at most."""
    every = 200
    for wider in expected:
        every = widened(every, validation_s, step_s, 10_000)
        assert every == wider
    assert every > 10_000 or validation_s <= MAX_SHARE * (validation_s + every * step_s)


def simulated(clock: Clock, every: int, first: int, total: int, cold_s: float, warm_s: float) -> list[int]:
    """Return the validated steps of a process from step `first` on, of 1.5 ms each, whose first validation is cold."""
    account = Account(clock=clock)
    account.end_start_up()
    cadence = Cadence(every, True, total, account)
    found: list[int] = []
    for step in range(first + 1, total + 1):
        clock.now_s += 0.0015
        if cadence.is_due(step):
            spend(clock, account, ("validation", warm_s if found else cold_s))
            found.append(step)
            cadence.every = cadence.suggested(step - first)
    return found


def test_the_first_validation_which_is_slower_does_not_decide_the_interval(clock: Clock) -> None:
    assert simulated(clock, 200, 0, 20_000, cold_s=3.1, warm_s=0.2) == [200, 400, 800, 3200, 12_800, 20_000]
    assert simulated(clock, 200, 0, 1000, cold_s=3.1, warm_s=0.006) == [200, 400, 600, 800, 1000]
    resumed = simulated(clock, 3200, 3300, 20_000, cold_s=3.1, warm_s=0.06)
    assert resumed == [6400, 9600, 12_800, 16_000, 19_200, 20_000]


def test_validations_take_at_most_two_percent_of_a_long_run(clock: Clock) -> None:
    found = simulated(clock, 200, 0, 400_000, cold_s=3.1, warm_s=0.2)
    assert (clock.now_s - 400_000 * 0.0015) / clock.now_s < MAX_SHARE == 0.02, found


def test_the_interval_does_not_grow_for_saves_in_between(clock: Clock) -> None:
    account = Account(clock=clock)
    account.end_start_up()
    cadence = Cadence(200, True, 10_000, account)
    for step in range(1, 401):
        spend(clock, account, ("steps", 0.1))
        if cadence.is_due(step):
            spend(clock, account, ("validation", 0.3))
            assert cadence.suggested(step) == 200
        else:
            with cadence.independent_save():
                spend(clock, account, ("saving", 0.05))
    assert cadence.validation_s == pytest.approx(0.3)


def test_a_single_long_validation_does_not_decide_the_interval(clock: Clock) -> None:
    account = Account(clock=clock)
    account.end_start_up()
    cadence = Cadence(200, True, 10_000, account)
    for number, validation_s in enumerate((3.0, 0.3, 300.0, 0.3), start=1):
        spend(clock, account, ("steps", 20.0), ("validation", validation_s))
        assert cadence.suggested(200 * number) == 200
    for number in range(5, 10):
        spend(clock, account, ("steps", 20.0), ("validation", 1.0))
        suggested = cadence.suggested(200 * number)
    assert suggested == 800, "most of them are long by now"


@pytest.fixture
def slow_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s, validations of 0.3 s, and a first interval of 2 steps."""
    monkeypatch.setattr("trainer.training.plan._MIN_VAL_EVERY", 2)
    monkeypatch.setattr("trainer.training.plan._MAX_VAL_EVERY", 2)
    clock = Clock()
    monkeypatch.setattr("trainer.training.run.Account", lambda earlier, start_s, busy: Account(earlier, 0, busy, clock))
    take(monkeypatch, "trainer.training.learner.Learner.step", clock, 1.0)
    take(monkeypatch, "trainer.training.validation.Validation.run", clock, 0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("slow_validations")
def test_the_interval_grows_without_changing_the_weights(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(shards, tmp_path / "grown", "--steps", 11)
    assert "\nValidate 1 image every 2 steps and at the end, less often if that takes over 2% of the time" in result.err
    for every in (8, 16):
        line = (
            f"Validations take 0.3 s: from now on every {every} steps, to take at most 2% of a long run; --val-every "
            "sets a fixed interval\n"
        )
        assert result.err.count(line) == 1
    assert intervals(tmp_path / "grown") == [(4, 8), (8, 16)]
    assert [line["validation_s"] for line in lines(tmp_path / "grown", "cadence")] == pytest.approx([0.3, 0.3])
    assert validations(tmp_path / "grown") == [2, 4, 8, 11]
    plan = json.loads((tmp_path / "grown" / "r" / "plan.json").read_text())
    assert (plan["val_every"], plan["val_every_adapts"]) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.training.cadence.MAX_SHARE", 1.0)
        train(shards, tmp_path / "constant", "--steps", 11)
    result = train(shards, tmp_path / "given", "--steps", 11, "--val-every", 3)
    assert "every 3 steps and at the end\n" in result.err and "from now on" not in result.err
    assert validations(tmp_path / "constant") == [2, 4, 6, 8, 10, 11]
    assert validations(tmp_path / "given") == [3, 6, 9, 11] and not lines(tmp_path / "given", "cadence")
    finals = [weights(tmp_path / name / "r")["model.pth"] for name in ("grown", "constant", "given")]
    assert finals[0] == finals[1] == finals[2]


@pytest.mark.slow
@pytest.mark.usefixtures("slow_validations")
def test_a_resumed_run_keeps_its_interval_unless_given_another(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        on_step(patch, 5, terminate)
        train(shards, tmp_path / "a", "--steps", 18, expect=143)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert trainer("--out", tmp_path / "a", "--run", "r", "--resume").code == 0
    assert validations(tmp_path / "a") == [2, 4, 8, 16, 18] and intervals(tmp_path / "a") == [(4, 8), (16, 16)]
    assert trainer("--out", tmp_path / "b", "--run", "r", "--resume", "--val-every", 6).code == 0
    assert validations(tmp_path / "b") == [2, 4, 6, 12, 18] and intervals(tmp_path / "b") == [(4, 8)]


# ---- what the ranks agree on


class TwoRanks(RankGroup):
    """This rank of a group of two whose other rank always contributes 3. `calls` are the collectives, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        super().__init__(SINGLE_PROCESS_GROUP.rank_info)
        self.calls.clear()

    @property
    def world_size(self) -> int:
        return 2

    def max(self, values: Sequence[float]) -> list[float]:
        return self.start_max(values)()

    def start_max(self, values: Sequence[float]) -> Callable[[], list[float]]:
        self.calls.append("start")
        result = [max(value, 3.0) for value in values]

        def wait() -> list[float]:
            self.calls.append("wait")
            return result

        return wait


def test_several_ranks_read_the_values_of_the_step_before() -> None:
    group, value = TwoRanks(), [5.0]
    agreement = Agreement(group, lambda: value)
    assert agreement.read() == [5.0] and group.calls == ["start", "wait"], "nothing was exchanged before"
    value = [7.0]
    agreement.exchange()
    value = [1.0]
    assert group.calls[2:] == ["start"]
    assert agreement.read() == [7.0] and group.calls[3:] == ["wait"]
    assert agreement.read() == [3.0], "and now those of now"


def test_a_single_process_reads_the_values_of_now() -> None:
    value = [1.0]
    agreement = Agreement(SINGLE_PROCESS_GROUP, lambda: value)
    agreement.exchange()
    value = [2.0]
    assert agreement.read() == [2.0]
