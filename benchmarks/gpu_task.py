"""What one process of `bench_gpu` is told, and what it says. Standard library only: data workers import this too."""

import json
from dataclasses import asdict, dataclass
from typing import Any

STREAM, RESIDENT, ONE_BATCH, PLAIN = "stream", "resident", "one batch", "plain loop"
OUR_WAYS = (STREAM, RESIDENT, ONE_BATCH)
MARK = "GPU_RESULT "  # in front of the result, among whatever the libraries print


@dataclass(frozen=True)
class Task:
    """One way of training one network. `patch` in HR px; `pairs` is the folder of PNG files, for the plain loop."""

    way: str
    model: str
    batch: int
    patch: int
    shards: str
    pairs: str
    device: str
    workers: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.model}, batch {self.batch}, {self.way}"

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


def result_in(output: str) -> dict[str, Any]:
    """What a process found, or under `failed` why it found nothing."""
    for line in output.splitlines():
        if line.startswith(MARK):
            result: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return result
    return {"failed": "it printed no result"}
