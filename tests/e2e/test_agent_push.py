"""The real agent has its seals pushed by the real program: through keys that are wrong at first and
a kill of the agent, and with nothing forgotten meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kit.agentbox import RUN, AgentBox, build_agent, wait_for
from kit.history import BOX, TRAINING, lost, planned, run_of
from kit.s3 import BUCKET, KEYS, RCLONE, open_bucket, rclone

from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.s3 import S3Store
from orchestrator.adapters.stamp import Stamp, set_stamp
from orchestrator.flows import stores
from orchestrator.ports import StorePlace, TaskContext
from remote.contract import pushed_uri, split_uri
from remote.s3 import read_keys

pytestmark = pytest.mark.e2e
ALSO = f"s3://{BUCKET}/prefix"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    if not RCLONE:
        pytest.skip("rclone is not installed")
    with rclone(tmp_path / "served") as url:
        yield url


@pytest.fixture
def box(tmp_path: Path, url: str) -> Iterator[AgentBox]:
    made = AgentBox(tmp_path / "home", build_agent(tmp_path / "agent.pyz"))
    aim = {"v": 1, "also": ALSO, "run": "run", "endpoint_url": url, "python": sys.executable}
    (made.root / "push.json").write_text(json.dumps(aim))
    yield made
    made.close()


def give_keys(box: AgentBox, secret: str) -> None:
    path = box.root / "s3.env"
    path.write_text(f"KEY_ID={KEYS.key_id}\nSECRET={secret}\n")
    path.chmod(0o600)


def said_by(pids: list[int]) -> Iterator[bytes]:
    """The arguments and environments of the processes that still run."""
    for pid in pids:
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                yield Path(f"/proc/{pid}/{name}").read_bytes()


def trees(box: AgentBox) -> set[str]:
    return {path.parent.name for path in box.root.glob("seals/*/tree")}


def test_a_push_outlives_wrong_keys_and_a_killed_agent(box: AgentBox, url: str) -> None:
    give_keys(box, "not-the-secret")
    box.spec(1, box.writer("--steps", "40", "--pause", "0.3", "--keep", "1"))
    box.start()
    sealed = box.await_fact("checkpoint.sealed", 4)
    told = box.await_fact("push.failed")
    assert "the keys are refused" in told[0].data["message"]
    for folder in (box.root / "seals").iterdir():
        (folder / "acked").touch()
    os.kill(box.agent_pid(), signal.SIGKILL)
    assert len(trees(box)) == 4, "what is not pushed is not let go of"
    give_keys(box, KEYS.secret)
    box.start()
    pushed = box.await_fact("checkpoint.pushed", 4, timeout_s=60)
    bucket = open_bucket(url)
    for fact in sealed:
        uri = pushed_uri(ALSO, "run", fact.data["name"], fact.data["digest"])
        assert bucket.manifest(split_uri(uri)[1]).digest == fact.data["digest"]
    assert {fact.data["name"] for fact in pushed} == {fact.data["name"] for fact in sealed}
    wait_for(lambda: len(trees(box)) == 2, "the oldest two to be let go")
    assert len(box.facts("push.failed")) == 1
    assert not any(KEYS.secret.encode() in said for said in said_by(box.processes()))


def test_a_volume_gives_its_seals_after_the_box_died(
    box: AgentBox, url: str, tmp_path: Path
) -> None:
    """The agent seals on a volume; with the box gone, the volume's own S3 is all there is. Nobody
    ever heard of the checkpoint."""
    seals = tmp_path / "served" / "vol-1" / "gpujob" / RUN / "seals"
    seals.mkdir(parents=True)
    (box.root / "seals").symlink_to(seals)
    (box.root / "push.json").unlink()
    box.spec(1, box.writer("--steps", "10", "--pause", "0.2"))
    box.start()
    sealed = box.await_fact("checkpoint.sealed")[0].data
    box.close()

    (tmp_path / "volume.env").write_text(f"KEY_ID={KEYS.key_id}\nSECRET={KEYS.secret}\n")
    place = StorePlace("vol-1", url, "eu-1", tmp_path / "volume.env")
    context = TaskContext(lambda _: None, lambda: False, lambda _: None)
    ((uri, manifest),) = stores.look(context, open_store, [(place, f"gpujob/{RUN}/seals")])
    run = run_of(planned(volume="vol-1", volume_store=True), *TRAINING, lost())
    ((kind, told),) = stores.told_by(run, BOX, uri, manifest)
    assert (kind, told["digest"], told["step"]) == ("checkpoint.sealed", sealed["digest"], 10)
    seal = run_of(planned(volume="vol-1", volume_store=True), *TRAINING, (kind, told)).seals[0]

    set_stamp(tmp_path / "mirror", Stamp("run", "ledger"))
    mirror = FolderMirror(tmp_path / "mirror", "run", "ledger")
    base = split_uri(uri)[1]
    published = Path(stores.fetch(context, mirror, open_store, place, base, seal))
    for record in box.recorded():
        if "path" in record:
            data = (published / record["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == record["sha256"]


def open_store(place: StorePlace) -> S3Store:
    return S3Store(place, lambda: read_keys(place.keys.read_text()))
