"""Reading what the programs of ours around a library print: a JSON object an update."""

import json
from collections.abc import Iterator, Sequence

from peers import Job, Line, Update


def read(lines: Sequence[Line], job: Job) -> Iterator[Update]:
    """`{"update": 3, "target_tokens": 4093}`; the time is when the line came."""
    for line in lines:
        if line.text.startswith('{"update"'):
            yield Update(line.seconds, json.loads(line.text)["target_tokens"])
