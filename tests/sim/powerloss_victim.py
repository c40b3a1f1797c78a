"""The program that the power fails under: it brings sealed checkpoints home as the daemon does,
and says what it has done. After each word it waits to hear that it may go on."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from kit.clock import ManualClock
from kit.history import BOX, TRAINING, planned

from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.adapters.stream import FrameStream
from orchestrator.core.run import Lease
from orchestrator.holder import Holder
from remote.contract import Manifest
from sim.saves_fetch import ServeLink

RUN = "demo-1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="sim.powerloss_victim", description=__doc__)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    serve = [sys.executable, "-I", "-S", options.agent, "serve", "--root", options.root]

    def connect() -> ServeLink:
        pipe = subprocess.PIPE
        return ServeLink(subprocess.Popen(serve, stdin=pipe, stdout=pipe))

    ledger = SqliteLedger(options.ledger, ManualClock(), Holder.current())
    lease = _lease(ledger, options.mirror)
    mirror, stream = FolderMirror(options.mirror, RUN, ledger.id), FrameStream(connect)
    say("begun")
    for name in options.names:
        _bring(name, ledger, lease, mirror, stream)
    stream.close()


def say(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


def _lease(ledger: SqliteLedger, mirror: Path) -> Lease:
    """A run that trains, or what is left of one. The launch claims the mirror, nobody else."""
    is_new = RUN not in ledger.active()
    if is_new:
        set_stamp(mirror, Stamp(RUN, ledger.id))
        ledger.create(RUN, {"v": 1}, planned()[1])
    lease = ledger.acquire(RUN)
    assert lease, "somebody else holds the run"
    if is_new:
        for kind, data in TRAINING:
            ledger.append(RUN, kind, data, epoch=lease.epoch)
    return lease


def _bring(
    name: str, ledger: SqliteLedger, lease: Lease, mirror: FolderMirror, stream: FrameStream
) -> None:
    manifest = stream.manifest(name, 1)
    if mirror.holds(manifest.digest):
        return
    ledger.append(RUN, "checkpoint.sealed", _sealed(manifest), epoch=lease.epoch)
    with mirror.partial(manifest) as into:
        stream.pull(name, 1, into, manifest, lambda _: None)
        say(f"pulled {name}")
        path = mirror.publish(name, 1, manifest)
    say(f"published {name}")
    told = {"instance": BOX, "name": name, "generation": 1}
    word = {**told, "digest": manifest.digest, "path": str(path)}
    ledger.append(RUN, "checkpoint.mirrored", word, epoch=lease.epoch)
    say(f"acked {name}")
    stream.ack(name, 1)


def _sealed(manifest: Manifest) -> dict[str, object]:
    meta = {key: manifest.meta[key] for key in ("attempt", "name", "generation", "step", "final")}
    size = {"size_bytes": manifest.size_bytes, "max_steps": None}
    return {**meta, **size, "instance": BOX, "digest": manifest.digest}


if __name__ == "__main__":
    main()
