"""What an evaluation says of the answers themselves, as metrics of the phase for its gate."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TOLD = ("wasserstein", "accuracy", "parse_rate", "distinct_answers")


def main() -> None:
    found = json.loads((Path(sys.argv[1]) / "metrics.json").read_text(encoding="utf-8"))
    line = {"v": 1, "step": 1, **numbers(found)}
    with Path(os.environ["GPUJOB_METRICS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line, indent=2))


def numbers(found: dict[str, Any]) -> dict[str, float]:
    """What is not a number is not told, and what was never told passes no gate."""
    told = {
        f"{who}_{name}": tasks["socrates"].get(name)
        for who, tasks in found["results"].items()
        for name in TOLD
    }
    return {name: value for name, value in told.items() if value is not None}


if __name__ == "__main__":
    main()
