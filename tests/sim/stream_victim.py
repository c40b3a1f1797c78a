"""The client of the stream-chaos campaign: it moves one tree and tries again after every failure.
It may be killed at any moment, and is then begun anew."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from kit.served import QUICK, ProxyLink

from orchestrator.adapters.stream import FrameStream
from orchestrator.errors import GpujobError, IntegrityError
from orchestrator.ports import Endpoint
from remote.contract import Manifest

TRIES = 40
PATIENCE_S = 1.0
SSH_PATIENCE_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="sim.stream_victim", description=__doc__)
    parser.add_argument("what", choices=("pull", "push"))
    parser.add_argument("--socket", type=Path, help="where a proxy listens")
    parser.add_argument("--ssh", help="JSON: state, instance, port, user, run")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--dest", type=Path, required=True)
    options = parser.parse_args()
    manifest = Manifest.decode(options.manifest.read_bytes())
    for left in reversed(range(TRIES)):
        stream = _stream(options)
        try:
            _move(stream, options, manifest)
            print(json.dumps({"tries": TRIES - left}), flush=True)
            return
        except GpujobError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            if not left:
                raise
            time.sleep(0.02)
        finally:
            stream.close()


def _stream(options: argparse.Namespace) -> FrameStream:
    if options.ssh is None:
        return FrameStream(lambda: ProxyLink(options.socket, PATIENCE_S), tuning=QUICK)
    from orchestrator.adapters.ssh import SshBoxes  # most seeds do without paramiko

    told = json.loads(options.ssh)
    endpoint = Endpoint(told["instance"], "127.0.0.1", told["port"], told["user"])
    return SshBoxes(Path(told["state"]), stall_s=SSH_PATIENCE_S).stream(endpoint, told["run"])


def _move(stream: FrameStream, options: argparse.Namespace, manifest: Manifest) -> None:
    if options.what == "push":
        stream.push(options.source, manifest, str(options.dest), "folder", lambda _: None)
        return
    told = stream.manifest("checkpoint-1", 1)
    if told.digest != manifest.digest:
        raise IntegrityError("the manifest is not the one that was sealed")
    stream.pull("checkpoint-1", 1, options.dest, manifest, lambda _: None)


if __name__ == "__main__":
    main()
