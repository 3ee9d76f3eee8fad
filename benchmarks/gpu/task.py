"""Tasks for worker processes, and the events that they report."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TEST_FOLDER = "tests/gpu"
TEST_LIMIT_S = 60.0  # of each test
EVENTS_FD = "SHARDGEN_BENCH_EVENTS"  # environment variable: file descriptor to which a process writes its events


@dataclass(frozen=True)
class Task:
    """One measurement, named `name` in the result.

    `measure` is the function that makes it, `module:function`, and yields its figures as dicts; `args` are its
    arguments, JSON-compatible. `limit_s` is the time after which it is assumed to hang, and its process killed.
    """

    measure: str
    name: str
    limit_s: float
    args: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


class Events:
    """Writes events, one line of JSON each, for the process that started this one."""

    def __init__(self) -> None:
        self._fd = int(os.environ.pop(EVENTS_FD))
        os.set_inheritable(self._fd, False)

    def emit(self, **event: Any) -> None:
        os.write(self._fd, json.dumps(event).encode() + b"\n")


def events_in(buffer: bytearray) -> Iterator[dict[str, Any]]:
    """Remove the complete lines from the buffer, and yield their events."""
    while (end := buffer.find(b"\n")) >= 0:
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        yield json.loads(line)
