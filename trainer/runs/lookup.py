"""Find the folder of a run: a new one, one to resume, or the one a torchrun job trains in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count

from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.files import writing
from srshards.storage.store import file_size, list_folders, local_path, read_bytes, remove, storage_of
from trainer.runs.folder import CONFIG, JOB, RunFolder, RunInUseError
from trainer.runs.stored_run import StoredRunFolder


def run_folder(home: Address) -> RunFolder:
    """Return the folder of the run at `home`. A local run writes there directly, a stored one through a local copy."""
    return RunFolder(home, local_path(home)) if storage_of(home).is_local else StoredRunFolder(home)


@contextmanager
def new_run(out: Address, name: str | None, default_name: str) -> Iterator[RunFolder]:
    """Yield the locked folder of a new run: `name`, or the first unused of default, default-2, ...

    UsageError if `name` is in use. Processes that start at the same time get different folders; in an object store,
    only those of one machine do.
    """
    with ExitStack() as stack:
        if name is not None:
            run = run_folder(out / name)
            run.require_unused()  # before a lock file is created, and again under the lock
            yield stack.enter_context(run.locked(new=True))
        else:
            yield _first_unused(stack, out, default_name)


def _first_unused(stack: ExitStack, out: Address, default_name: str) -> RunFolder:
    for number in count(1):
        home = out / (default_name if number == 1 else f"{default_name}-{number}")
        with writing(home):
            is_free = storage_of(home).claim_folder(home)
        if is_free:
            with suppress(RunInUseError):  # a process with this --run, or, in a store, one that has not written yet
                return stack.enter_context(run_folder(home).locked(new=True))
    raise AssertionError("unreachable: count() is infinite")


def existing_run(out: Address, name: str | None) -> RunFolder:
    """Return the folder of the run to resume. UsageError, with a list of the existing runs, if there is none."""
    folders = list_folders(out)
    if name in folders and file_size(out / name / CONFIG) is not None:
        return run_folder(out / name)
    runs = [folder for folder in folders if file_size(out / folder / CONFIG) is not None]
    known = f"runs in {out}: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    if name is None:
        raise UsageError(f"--resume requires --run NAME; {known}")
    raise UsageError(f"--run {name} --resume: {out / name / CONFIG} not found; {known}")


def run_of_job(out: Address, name: str | None, job: str) -> RunFolder | None:
    """Return the folder that a torchrun job trains in, restricted to `name` if given; None if it has not started."""
    return next((run_folder(file.parent) for file in _job_files(out, name, job)), None)


def forget_job(out: Address, name: str | None, job: str) -> None:
    """Remove the job files of an earlier torchrun job with the same ID, so that its runs are not resumed."""
    for file in _job_files(out, name, job):
        remove(file)


def _job_files(out: Address, name: str | None, job: str) -> Iterator[Address]:
    for folder in list_folders(out):
        file = out / folder / JOB
        if name in (None, folder) and file_size(file) is not None and read_bytes(file).decode() == job:
            yield file
