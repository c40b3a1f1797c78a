"""One checkpoint from a box into a mirror, as the daemon does it: the manifest, the transfer, every
byte verified, fsync, and the one rename that makes it visible. The daemon begins to connect when a
box says that a save has begun, which is before its agent seals it: `lead_s`, 0 for not at all.
Prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from orchestrator.adapters.hashes import hash_file
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.ports import Endpoint, Stream
from remote.contract import Manifest

CODE = "gpujob/bench-code"


def main() -> None:
    asked = json.loads(sys.argv[1])
    boxes = SshBoxes(Path(asked["state"]))
    folder = Path(asked["mirror"])
    set_stamp(folder, Stamp(asked["run"], "bench"))
    mirror = FolderMirror(folder, asked["run"], "bench")
    endpoint = Endpoint(*asked["endpoint"])
    send_code(boxes.stream(endpoint, asked["run"]))
    cpu_s = used_s()
    if asked["lead_s"]:
        boxes.expect(endpoint, asked["run"], asked["size_bytes"])
        time.sleep(asked["lead_s"])
    began = time.monotonic()
    stream = boxes.stream(endpoint, asked["run"])
    try:
        manifest = stream.manifest(asked["name"], 1, asked["size_bytes"])
        with mirror.partial(manifest) as partial:
            stream.pull(asked["name"], 1, partial, manifest, lambda _: None)
            mirror.publish(asked["name"], 1, manifest)
        seconds = time.monotonic() - began
    finally:
        stream.close()
    print(json.dumps({"seconds": seconds, "cpu_s": used_s() - cpu_s}))


def send_code(stream: Stream) -> None:
    here = Path(__file__)
    try:
        code = Manifest((hash_file(here.parent, here.name),))
        stream.push(here.parent, code, CODE, "merge", lambda _: None)
    finally:
        stream.close()


def used_s() -> float:
    """CPU seconds of this process and of the children that it waited for."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


if __name__ == "__main__":
    main()
