"""Task and result of one process of `bench_gpu`. Standard library only, because data workers import this module too."""

import json
from dataclasses import asdict, dataclass
from typing import Any

STREAM, RESIDENT, ONE_BATCH, PLAIN = "stream", "resident", "one batch", "plain loop"
GRAPH, EAGER = "one batch, graph", "one batch, eager"
# The mode of the step (`--step`) in each case of ours. One batch repeated is the ceiling of its mode.
STEP_OF_CASE = {
    ONE_BATCH: "compiled-graph",
    STREAM: "compiled-graph",
    EAGER: "eager",
    GRAPH: "graph",
    RESIDENT: "compiled-graph",
}
OUR_CASES = tuple(STEP_OF_CASE)
WITH_ONE_BATCH = (ONE_BATCH, GRAPH, EAGER)
MARK = "GPU_RESULT "  # prefix of the result; libraries may print more


@dataclass(frozen=True)
class Task:
    """One case of training one network. `patch` in HR px; `pairs` is the folder of PNG files for the plain loop."""

    case: str
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
        return f"{self.model}, batch {self.batch}, {self.case}"

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        return cls(**json.loads(text))


def result_in(output: str) -> dict[str, Any]:
    """Return the result that a process printed; `failed` is the reason if it measured nothing."""
    for line in output.splitlines():
        if line.startswith(MARK):
            result: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return result
    return {"failed": "no result was printed"}
