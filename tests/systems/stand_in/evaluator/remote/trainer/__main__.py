"""`python -m remote.trainer evaluate SETTINGS` without a model: it reads the items and writes what
docs/formats.md §9 describes. STAND_IN_VERDICT: go, no-go or unsure; STAND_IN_PARSE_RATE."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# How much nearer to people than the baseline, and how much that differs from cell to cell.
GAINS = {"go": (0.12, 0.02), "no-go": (0.02, 0.01), "unsure": (0.08, 0.9)}
BASELINE = 0.2
CELLS = 12


def main() -> None:
    assert sys.argv[1] == "evaluate"
    settings = json.loads(Path(sys.argv[2]).read_text())
    files = [Path(name).read_text() for name in settings["socrates"]["data"]]
    items = "".join(files).splitlines(keepends=True)
    who, gain, spread = "baseline", 0.0, 0.0
    if "checkpoint" in settings:
        assert (Path(settings["checkpoint"]) / "adapter_config.json").is_file()
        who = "checkpoint"
        gain, spread = GAINS[os.environ.get("STAND_IN_VERDICT", "go")]
    output = Path(settings["output"])
    output.mkdir(parents=True)
    (output / f"{who}.socrates.jsonl").write_text("".join(items))
    results = {who: {"socrates": _result(gain, spread, len(items))}}
    told = {"v": 1, "asked": "0" * 64, "results": results, "comparison": {}}
    (output / "metrics.json.tmp").write_text(json.dumps(told))
    (output / "metrics.json.tmp").rename(output / "metrics.json")


def _result(gain: float, spread: float, items: int) -> dict[str, Any]:
    sides = [1 if cell % 2 else -1 for cell in range(CELLS)]
    cells = [
        BASELINE * (1 + cell / 100) * (1 - gain - spread * side) for cell, side in enumerate(sides)
    ]
    return {
        "wasserstein": sum(cells) / CELLS,
        "accuracy": 0.65,
        "parse_rate": float(os.environ.get("STAND_IN_PARSE_RATE", "0.99")),
        "distinct_answers": 5,
        "items": items,
        "uniform": {"wasserstein": 0.22, "accuracy": 0.61},
        "by_cell": cells,
    }


if __name__ == "__main__":
    main()
