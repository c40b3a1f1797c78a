"""How long `gpujob --help` and `gpujob ps` (with 500 runs) take, beside a bare Python: the median
of 10, in one run. `python benchmarks/startup.py`"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.holder import Holder

TIMES = 10
RUNS = 500
PLANNED = {
    "name": "bench", "folder": "/", "mirror": "/", "usd_per_hour": 1.0, "host_loss": 1, "crash": 1,
}  # fmt: skip


def main() -> None:
    gpujob = str(Path(sys.executable).with_name("gpujob"))
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        env = {**os.environ, "GPUJOB_HOME": folder}
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "gpujob --help": [gpujob, "--help"],
            f"gpujob ps ({RUNS} runs)": [gpujob, "ps"],
        }
        for name, words in commands.items():
            print(f"{name:<24} {median_s(words, env) * 1000:6.0f} ms")


def fill(folder: Path) -> None:
    ledger = SqliteLedger(folder / "ledger.db", SystemClock(), Holder.current())
    for number in range(RUNS):
        ledger.create(f"bench-{number:06x}", {}, PLANNED)
    ledger.close()


def median_s(words: list[str], env: dict[str, str]) -> float:
    once(words, env)
    return statistics.median(once(words, env) for _ in range(TIMES))


def once(words: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
