"""The project's own validation rows (`instruction`, `input`, `output`) as the items that gpujob's
evaluation asks: the prompt that training used, the question's scale, and the task within a study.
With the answer as `completion` they are also what its trainer learns from."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

# "an integer from 1 to 7", "a number from 1 (Not at all) to 5 (Very)"; the last one in the text.
_SCALE = re.compile(r"\bfrom (-?\d+)(?: \([^)]*\))? to (-?\d+)")
_TASK_LENGTH = 160


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    with source.open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as items:
        for line in rows:
            if line.strip():
                items.write(json.dumps(item(json.loads(line))) + "\n")


def item(row: dict[str, Any]) -> dict[str, Any]:
    """The rows carry no task number: the question, which ends the scenario, stands in for it."""
    asked = row["input"]
    task = hashlib.sha256(asked[-_TASK_LENGTH:].encode()).hexdigest()[:12]
    prompt = f"### Instruction:\n{row['instruction']}\n\n### Input:\n{asked}\n\n### Response:\n"
    found = {
        "study_id": row["study_id"],
        "condition_num": row["condition_num"],
        "task_num": row.get("task_num", task),
        "prompt": prompt,
        "completion": row["output"],
        "response": row["output"],
    }
    scales = _SCALE.findall(asked)
    answer = re.search(r"-?\d+(?:\.\d+)?", row["output"])
    if scales and answer:
        low, high = sorted(map(int, scales[-1]))
        if low <= float(answer[0]) <= high:
            found |= {"scale_min": low, "scale_max": high}
    return found


if __name__ == "__main__":
    main()
