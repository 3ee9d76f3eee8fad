"""Run the tests that need a GPU, and report each test as events.

python -m benchmarks.gpu.gpu_tests [ARGUMENTS OF PYTEST]
"""

import faulthandler
import os
import sys
from typing import Any

import pytest

from benchmarks.gpu.task import TEST_FOLDER, TEST_LIMIT_S, Events

# Without the settings and plugins of the whole project, which need not be installed. The parent has the time limits.
_OPTIONS = ("-q", "--confcutdir", TEST_FOLDER, "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:faulthandler")
_DUMP_BEFORE_S = 1.0


class Reporter:
    """Plugin of pytest: emits `collected`, a list of all tests, and `start` and `end` of each.

    `end` has the outcome, the seconds, and the reason if the test did not pass.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._reports: list[pytest.TestReport] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:  # there are none after an error
            self._events.emit(collected=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._reports = []
        self._events.emit(start=nodeid)
        faulthandler.dump_traceback_later(TEST_LIMIT_S - _DUMP_BEFORE_S)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        reports = self._reports
        worst = next((report for report in reports if not report.passed), None)
        found: dict[str, Any] = {
            "outcome": worst.outcome if worst else "passed",
            "seconds": round(sum(r.duration for r in reports), 1),
        }
        if worst is not None:
            found["reason"] = _reason(worst)
        if worst is not None and worst.failed:
            found["traceback"] = worst.longreprtext.splitlines()[-40:]
        self._events.emit(end=nodeid, **found)


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longreprtext).strip().splitlines()[0][:300]


def main() -> None:
    """Run pytest."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.exit(pytest.main([*_OPTIONS, *sys.argv[1:]], plugins=[Reporter(Events())]))


if __name__ == "__main__":
    main()
