"""What can still be done for a run that has ended: bring home what lies in S3."""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.run import Run, Seal
from orchestrator.errors import Transient
from orchestrator.flows import stores
from orchestrator.flows.stores import OpenStore
from orchestrator.flows.worth import weighed
from orchestrator.ports import Ledger, Mirror, Progress, StorePlace, TaskContext


def fetch_ended(
    ledger: Ledger,
    run: Run,
    seal: Seal,
    folder: Path,
    *,
    mirror: Mirror,
    store: OpenStore,
    source: tuple[StorePlace, str],
    progress: Progress,
) -> Run:
    """Mirror a stored checkpoint of an ended run, in this process, and return the run with it.
    `folder` is the run's. Raises Transient while somebody else acts on the run."""
    lease = ledger.acquire(run.id)
    if lease is None:
        raise Transient(
            f"another process acts on {run.id} now; nothing was changed",
            hint="try again in a moment",
        )
    context = TaskContext(
        report=lambda told: progress(told[1]), cancelled=lambda: False, on_cancel=lambda undo: None
    )
    try:
        place, base = source
        got = weighed(context, stores.fetch, seal, folder, mirror, store, place, base, seal)
        data = {"name": seal.name, "instance": seal.instance, "generation": seal.generation}
        told = {**data, "digest": seal.digest, "path": got.path, "metrics": got.metrics}
        ledger.append(run.id, "checkpoint.mirrored", told, epoch=lease.epoch)
    finally:
        ledger.release(lease)
    return ledger.run(run.id)
