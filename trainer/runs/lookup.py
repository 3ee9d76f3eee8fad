"""The folder of a run: a new one by its name or a default name, an existing one by its name or torchrun job."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from srshards.errors import RunError, UsageError
from srshards.format import Address
from srshards.storage.store import file_size, is_folder, list_folders, read_bytes, remove
from trainer.runs.folder import CONFIG_NAME, JOB_NAME, RunFolder, TakenError


@contextmanager
def new_run(out: Address, name: str | None, default_name: str) -> Iterator[RunFolder]:
    """The folder of a new run, locked: `name`, which must be free, or the first free one of default, default-2, ...

    Of processes that begin at the same moment each gets a name of its own, or the UsageError that it is taken; in a
    store, those of one machine.
    """
    with ExitStack() as stack:
        if name is not None:
            run = RunFolder(out / name)
            run.refuse_begun()  # before a lock is put there, and once more behind it
            yield stack.enter_context(run.locked(new=True))
        else:
            yield _first_free(stack, out, default_name)


def _first_free(stack: ExitStack, out: Address, default_name: str) -> RunFolder:
    for number in count(1):
        home = out / (default_name if number == 1 else f"{default_name}-{number}")
        if _is_claimed(home):
            with suppress(TakenError):  # by a process that was told this name, or, in a store, has not written yet
                return stack.enter_context(RunFolder(home).locked(new=True))
    raise AssertionError("there is always a free number")


def _is_claimed(home: Address) -> bool:
    """Whether the name was free. On a disk it is this process's now; in a store it is once the run is locked."""
    if not isinstance(home, Path):
        return not is_folder(home)
    try:
        home.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunError(f"cannot write {home}: {error.strerror or error}") from error
    return True


def existing_run(out: Address, name: str | None) -> RunFolder:
    """The folder of the run to resume. UsageError lists the runs that there are when it is none of them."""
    folders = list_folders(out)
    if name in folders and file_size(out / name / CONFIG_NAME) is not None:
        return RunFolder(out / name)
    runs = [folder for folder in folders if file_size(out / folder / CONFIG_NAME) is not None]
    there = f"the runs in {out} are: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    if name is None:
        raise UsageError(f"--resume needs the run's name: --run NAME; {there}")
    raise UsageError(f"--run {name} --resume: there is no {out / name / CONFIG_NAME}; {there}")


def run_of_job(out: Address, name: str | None, job: str) -> RunFolder | None:
    """The folder that a torchrun job trains in, of that name if there is one; None before it has begun."""
    return next((RunFolder(mark.parent) for mark in _marks(out, name, job)), None)


def forget_job(out: Address, name: str | None, job: str) -> None:
    """Whatever was begun by an earlier torchrun job of the same name is not this one's to go on with."""
    for mark in _marks(out, name, job):
        remove(mark)


def _marks(out: Address, name: str | None, job: str) -> Iterator[Address]:
    for folder in list_folders(out):
        mark = out / folder / JOB_NAME
        if name in (None, folder) and file_size(mark) is not None and read_bytes(mark).decode() == job:
            yield mark
