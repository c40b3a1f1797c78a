"""The command line in a process that dies by SIGKILL at its Nth ledger write after the plan:
`python doomed.py 2 after launch job.yaml --yes --foreground`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import orchestrator.wiring.ledger
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.cli import main
from orchestrator.core.run import Event

AT, WHEN = int(sys.argv[1]), sys.argv[2]


class DoomedLedger(SqliteLedger):
    writes = 0

    def append(
        self, run: str, kind: str, data: Mapping[str, Any], *, epoch: int | None = None
    ) -> Event:
        DoomedLedger.writes += 1
        if DoomedLedger.writes == AT and WHEN == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        event = super().append(run, kind, data, epoch=epoch)
        if DoomedLedger.writes == AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return event


if __name__ == "__main__":
    orchestrator.wiring.ledger.SqliteLedger = DoomedLedger  # type: ignore[misc]
    sys.argv = ["gpujob", *sys.argv[3:]]
    main()
