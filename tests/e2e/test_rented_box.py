"""What a rented box needs beyond a local one, on local ones that are made to look rented: the
environment of a login, a disk that is emptied, a volume that outlives its box, the dead man."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kit.agentbox import WRITER
from kit.boxes import RUN, Rented, end_all, offer_of, provider_at, rent, until
from kit.plans import changed
from kit.plans import plan_of as small_plan

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.mirror import FolderMirror
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.adapters.zipapp import build_agent, library
from orchestrator.core.instance import Instance
from orchestrator.core.offer import Rental
from orchestrator.core.plan import CheckpointPlan, Plan, ResumePlan
from orchestrator.core.run import Attempt, Source
from orchestrator.errors import Wiped
from orchestrator.flows import box
from orchestrator.flows.box import Kit
from orchestrator.flows.prepare import prepare as prepare_box
from orchestrator.ports import SelfStop, TaskContext
from remote.contract import Fact

pytestmark = pytest.mark.e2e

CONTEXT = TaskContext(lambda _: None, lambda: False, lambda _: None)


class RentedProvider(LocalProvider):
    """Local boxes with a file that a login sources, and a way to stop themselves."""

    def __init__(self, root: Path, *, login_file: Path | None = None, stop_url: str = "") -> None:
        super().__init__(root, clock=SystemClock())
        self.capabilities = replace(self.capabilities, login_file=str(login_file or ""))
        self._stop_url = stop_url

    def self_stop(self, provider_id: str) -> SelfStop | None:
        if not self._stop_url:
            return None
        return SelfStop("POST", f"{self._stop_url}/{provider_id}", {"action": "stop"}, "POD_KEY")


@pytest.fixture
def boxes(tmp_path: Path) -> SshBoxes:
    return SshBoxes(tmp_path / "state", stall_s=10.0)


@pytest.fixture
def end(tmp_path: Path) -> Iterator[None]:
    yield
    end_all(provider_at(tmp_path / "local"))


def plan_of(tmp_path: Path, rented: Rented, command: str, **changes: Any) -> Plan:
    offer = offer_of(rented.provider)
    checkpoints = CheckpointPlan("out", "auto", str(tmp_path / "m"), ResumePlan("", {}, ""))
    given = {"offers": (offer,), "command": command, "checkpoints": checkpoints}
    return small_plan(**{"folder": str(tmp_path), **given, **changes})


def kit_of(tmp_path: Path, rented: Rented, plan: Plan) -> Kit:
    return Kit(
        run=RUN,
        plan=plan,
        boxes=rented.boxes,
        endpoint=rented.endpoint,
        world_size=1,
        folder=tmp_path / "state" / "runs" / RUN,
        mirror=FolderMirror(tmp_path / "m", RUN, "ledger"),
        agent=build_agent(),
        library=library(),
        provider=rented.provider,
        provider_id=rented.provider_id,
    )


def prepare(kit: Kit) -> None:
    where, now = kit.endpoint, SystemClock().now()
    offer = kit.phase.offer
    instance = Instance(where.instance, "local", offer.id, 0.0, "mark", now)
    instance = replace(instance, provider_id=kit.provider_id)
    assert kit.provider
    prepare_box(CONTEXT, kit, kit.provider, instance)


def attempt(kit: Kit, number: int = 1, resume: Source | None = None) -> Attempt:
    return Attempt(number, kit.endpoint.instance, resume, SystemClock().now())


def facts(rented: Rented, kind: str) -> list[Mapping[str, Any]]:
    path = rented.folder / "home" / ".gpujob" / RUN / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    told = [Fact.decode(line) for line in lines if line.endswith(b"\n")]
    return [fact.data for fact in told if fact.kind == kind]


def writer(*words: str) -> str:
    return shlex.join(["exec", "/usr/bin/python3", str(WRITER), *words])


def test_setup_and_trainer_have_what_a_login_has(
    tmp_path: Path, boxes: SshBoxes, end: None
) -> None:
    login = tmp_path / "rp_environment"
    login.write_text('echo welcome\nexport POD_ID="p 1"\nexport HOME="/nowhere"\n')
    rented = rent(RentedProvider(tmp_path / "local", login_file=login), boxes)
    plan = plan_of(tmp_path, rented, 'echo "trained in $POD_ID" >told', setup="echo $POD_ID >set")
    kit = kit_of(tmp_path, rented, plan)
    prepare(kit)
    box.start(CONTEXT, kit, attempt(kit))
    work = rented.folder / "home" / "gpujob" / RUN
    assert (work / "set").read_text() == "p 1\n"
    assert until(lambda: bool(facts(rented, "trainer.exited")))
    assert (work / "told").read_text() == "trained in p 1\n"


def test_a_box_whose_disk_was_emptied_is_prepared_again(
    tmp_path: Path, boxes: SshBoxes, end: None
) -> None:
    rented = rent(RentedProvider(tmp_path / "local"), boxes)
    kit = kit_of(tmp_path, rented, plan_of(tmp_path, rented, "true"))
    prepare(kit)
    rented.sh("rm -rf .gpujob gpujob")
    source = Source("checkpoint-10", 10, "0" * 64)
    for resume in (None, source):
        with pytest.raises(Wiped):
            box.start(CONTEXT, kit, attempt(kit, resume=resume))
    prepare(kit)
    box.start(CONTEXT, kit, attempt(kit))
    assert until(lambda: bool(facts(rented, "trainer.exited")))


def test_what_was_sealed_on_a_volume_outlives_its_box(
    tmp_path: Path, boxes: SshBoxes, end: None
) -> None:
    """The box is gone before anything came home; the next one, with the same volume, tells of
    the seal, serves it and resumes from it."""
    volume = tmp_path / "volume"
    volume.mkdir()
    rental = Rental(volume="vol-1", volume_path=str(volume))
    provider = RentedProvider(tmp_path / "local")
    first = rent(provider, boxes)
    command = writer("--out", "out", "--record", str(tmp_path / "record"))
    plan = plan_of(tmp_path, first, command, rental=rental)
    kit = kit_of(tmp_path, first, plan)
    prepare(kit)
    box.start(CONTEXT, kit, attempt(kit))
    assert until(lambda: bool(facts(first, "agent.settled")), 60)
    (sealed,) = facts(first, "checkpoint.sealed")
    there = volume / "gpujob" / RUN
    assert sorted(each.name for each in there.iterdir()) == ["incoming", "pins", "seals", "work"]
    assert (there / "work" / "out" / "checkpoint-10").is_dir()
    shown = json.loads((there / "seals" / "checkpoint-10.1" / "manifest.json").read_text())
    assert shown["digest"] == sealed["digest"]
    provider.terminate(first.provider_id)

    second = rent(provider, boxes, f"{RUN}-2")
    resumed = changed(plan, command="ls out >seen; echo $HF_HOME >>seen")
    kit = kit_of(tmp_path, second, resumed)
    prepare(kit)
    source = Source("checkpoint-10", 10, sealed["digest"])
    box.start(CONTEXT, kit, attempt(kit, 2, source))
    assert until(lambda: bool(facts(second, "agent.settled")), 60)
    seen = (there / "work" / "seen").read_text().splitlines()
    assert seen == ["checkpoint-10", f"{volume}/.cache/huggingface"]
    (again,) = facts(second, "checkpoint.sealed")
    assert (again["digest"], again["generation"]) == (sealed["digest"], 1)
    stream = boxes.stream(second.endpoint, RUN)
    assert stream.manifest("checkpoint-10", 1).digest == sealed["digest"]
    stream.close()


Seen = list[tuple[str, str, Any]]


@pytest.fixture
def api() -> Iterator[tuple[str, Seen]]:
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_box_that_nobody_follows_asks_to_be_stopped(
    tmp_path: Path, boxes: SshBoxes, end: None, api: tuple[str, Seen]
) -> None:
    """Its token is in its own environment alone; while somebody follows, it asks for nothing."""
    url, seen = api
    login = tmp_path / "rp_environment"
    login.write_text("export POD_KEY=pod-canary-4711 no_proxy=127.0.0.1\n")
    rented = rent(RentedProvider(tmp_path / "local", login_file=login, stop_url=url), boxes)
    kit = kit_of(tmp_path, rented, plan_of(tmp_path, rented, "true", orphan_s=3.0))
    prepare(kit)
    box.start(CONTEXT, kit, attempt(kit))
    heard = rented.folder / "home" / ".gpujob" / RUN / "heard"
    heard.unlink()
    follower = boxes.follow(rented.endpoint, RUN, events=0, log=0, metrics=0)
    assert any(heard.exists() for _ in follower), "a heartbeat was answered"
    assert (seen, facts(rented, "deadman.fired")) == ([], [])
    follower.close()
    assert until(lambda: bool(facts(rented, "deadman.refused")), 30)
    path = f"/{rented.provider_id}"
    assert seen == [(path, "Bearer pod-canary-4711", {"action": "stop"})]
    (fired,) = facts(rented, "deadman.fired")
    assert fired["reason"].endswith("no trainer runs")
    kept = [each for each in (rented.folder / "home").rglob("*") if each.is_file()]
    assert not any(b"pod-canary-4711" in each.read_bytes() for each in kept)
