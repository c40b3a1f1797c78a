"""Checkpoints without a box: where they are looked for, what is believed of them, and how a box
fetches one itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from kit.history import BOX, DIGEST, TRAINING, gone, lost, mirrored, planned, run_of, sealed

from orchestrator.core.plan import PushPlan
from orchestrator.core.run import Run, Source
from orchestrator.errors import CommandFailed, GpujobError, IntegrityError, Transient
from orchestrator.flows import outfit, stores
from orchestrator.flows.transfers import Transfers, fetch_key
from orchestrator.ports import Capabilities, Completed, StorePlace, TaskContext
from remote.contract import ContractError, FileEntry, Manifest, pushed_uri

ALSO = "s3://bucket/prefix"
FOLDER = Path("/state/runs/demo-1")
FREE: frozenset[str] = frozenset()


@dataclass
class Cloud:
    """As much of a provider as is asked here."""

    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(volume_s3="https://s3api-{region}.example.org")
    )


def also() -> PushPlan:
    return PushPlan(ALSO, "https://s3.example.org", "eu-1")


def run_with(*told: Any, **words: Any) -> Run:
    return run_of(planned(also=ALSO, **words), *told)


def pushed(step: int) -> tuple[str, dict[str, Any]]:
    name, digest = f"checkpoint-{step}", DIGEST[step]
    uri = pushed_uri(ALSO, "demo-1", name, digest)
    return "checkpoint.pushed", {"instance": BOX, "name": name, "digest": digest, "uri": uri}


def manifest(number: int, /, **meta: Any) -> Manifest:
    digest = f"{number:064x}"
    told = {"name": f"checkpoint-{number}", "generation": 1, "step": number, "attempt": 1}
    return Manifest((FileEntry("w", 1, digest, (digest,)),), {**told, "final": False, **meta})


def test_a_pushed_seal_is_where_the_plan_says() -> None:
    run = run_with(*TRAINING, sealed(10), pushed(10))
    place, base = stores.place_of(run, also(), run.seals[0], FOLDER, Cloud())  # type: ignore[arg-type]
    assert place == StorePlace("bucket", "https://s3.example.org", "eu-1", FOLDER / "s3.env")
    assert f"s3://bucket/{base}" == run.pushed[DIGEST[10]]


def test_a_seal_on_a_volume_is_where_its_provider_says() -> None:
    run = run_with(*TRAINING, sealed(10), volume="vol-1", volume_store=True)
    box = replace(run.instances[0], region="EU-RO-1")
    run = replace(run, instances=(box,))
    place, base = stores.place_of(run, also(), run.seals[0], FOLDER, Cloud())  # type: ignore[arg-type]
    assert place.endpoint_url == "https://s3api-eu-ro-1.example.org"
    assert (place.bucket, place.region, place.keys.name) == ("vol-1", "EU-RO-1", "volume.env")
    assert base == "gpujob/demo-1/seals/checkpoint-10.1"
    none = Cloud(Capabilities())
    place, _ = stores.place_of(run, also(), run.seals[0], FOLDER, none)  # type: ignore[arg-type]
    assert place.endpoint_url == stores.NOWHERE, "a volume's keys are nobody else's"


def told(run: Run, found: Manifest, uri: str = "") -> list[tuple[str, dict[str, Any]]]:
    place = uri or pushed_uri(ALSO, run.id, str(found.meta.get("name")), found.digest)
    return stores.told_by(run, BOX, place, found)


def test_what_a_lost_box_pushed_unheard_is_sealed_and_pushed() -> None:
    run = run_with(*TRAINING, lost())
    found = manifest(30, max_steps=60)
    (first, seal), (second, push) = told(run, found)
    assert (first, second) == ("checkpoint.sealed", "checkpoint.pushed")
    assert (seal["step"], seal["max_steps"], seal["digest"]) == (30, 60, found.digest)
    assert seal["instance"] == push["instance"] == BOX
    assert told(run_with(*TRAINING, lost(), (first, seal), (second, push)), found) == []


def test_what_was_heard_of_as_sealed_is_only_told_as_pushed() -> None:
    found = manifest(30)
    seal = told(run_with(*TRAINING), found)[0]
    assert [kind for kind, _ in told(run_with(*TRAINING, seal), found)] == ["checkpoint.pushed"]


def test_what_lies_on_a_volume_was_not_pushed() -> None:
    found = told(run_with(*TRAINING), manifest(30), "s3://vol-1/gpujob/demo-1/seals/x")
    assert [kind for kind, _ in found] == ["checkpoint.sealed"]


@pytest.mark.parametrize(
    "meta",
    [{"name": "../x"}, {"attempt": "1"}, {"generation": 0}, {"step": -1}, {"attempt": None}],
    ids=str,
)
def test_what_no_honest_box_wrote_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        told(run_with(*TRAINING), manifest(30, **meta), "s3://bucket/somewhere")


def test_both_places_are_looked_at() -> None:
    run = run_with(*TRAINING, volume="vol-1", volume_store=True)
    places = stores.places_of(run, also(), run.instances[0], FOLDER, Cloud())  # type: ignore[arg-type]
    assert [(place.bucket, prefix) for place, prefix in places] == [
        ("bucket", "prefix/demo-1"),
        ("vol-1", "gpujob/demo-1/seals"),
    ]


def test_what_no_box_has_comes_from_the_store_and_the_rest_from_the_box() -> None:
    second = "demo-1-2"
    told = (*TRAINING, sealed(10), pushed(10), lost(), gone(), sealed(20, 1, second))
    run, transfers = run_with(*told), Transfers()
    stored, boxed = transfers.next_stored(run, second, FREE), transfers.next(run, second, FREE)
    assert stored and boxed
    assert (stored.name, boxed.name) == ("checkpoint-10", "checkpoint-20")
    assert transfers.next_stored(run, second, FREE) is None, "one at a time"
    assert transfers.fetching_from(BOX) == [], "the end of its box does not end this"
    assert transfers.ended(fetch_key(stored)) == stored
    assert transfers.next_stored(run, None, frozenset({fetch_key(stored)})) is None


def test_a_box_that_has_it_is_asked_before_the_store() -> None:
    run = run_with(*TRAINING, sealed(10), pushed(10))
    assert Transfers().next_stored(run, BOX, FREE) is None
    assert Transfers().next_stored(run, None, FREE)
    assert not Transfers().next_stored(run_with(*TRAINING, sealed(10), mirrored(10)), None, FREE)


class Saying:
    """A shell that answers each restore with the next word, and anything else with push.json."""

    def __init__(self, *words: dict[str, Any] | str) -> None:
        self.words = list(words)
        self.ran: list[str] = []

    def run(self, command: str, **_: Any) -> Completed:
        self.ran.append(command)
        if command.startswith("cat "):
            return Completed(0, '{"python": "/venv/bin/python"}', "")
        word = self.words.pop(0)
        text = word if isinstance(word, str) else f"Welcome!\n{json.dumps(word)}\n"
        return Completed(0, text, "noise")

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None: ...

    def close(self) -> None: ...


def restore(shell: Saying) -> list[Any]:
    said: list[Any] = []
    context = TaskContext(said.append, lambda: False, lambda _: None)
    source = Source("checkpoint-10", 10, DIGEST[10])
    stores.restore(context, shell, "demo-1", source, "gpujob/demo-1/out/checkpoint-10")
    return said


def test_a_box_fetches_by_itself_and_tells_how_far_it_is() -> None:
    shell = Saying(
        {"state": "running", "bytes": 5},
        {"state": "running", "bytes": 9},
        {"state": "done", "bytes": 9},
    )
    assert restore(shell) == [(DIGEST[10], 5), (DIGEST[10], 9)]
    assert "'/venv/bin/python' '-m' 'remote.push' 'restore'" in shell.ran[-1]
    assert "'gpujob/demo-1/out/checkpoint-10'" in shell.ran[-1]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"state": "failed", "kind": "Busy", "message": "503"}, Transient),
        ({"state": "failed", "kind": "OSError", "message": "no room"}, Transient),
        ({"state": "failed", "kind": "Denied", "message": "403"}, IntegrityError),
        ({"state": "failed", "kind": "Absent", "message": "404"}, IntegrityError),
        ({"state": "failed", "kind": "Corrupt", "message": "x"}, IntegrityError),
        ("no JSON", CommandFailed),
    ],
    ids=["busy", "disk", "denied", "absent", "corrupt", "nonsense"],
)
def test_a_box_that_cannot_fetch_it_says_whether_to_try_again(
    said: dict[str, Any] | str, error: type[GpujobError]
) -> None:
    with pytest.raises(error):
        restore(Saying(said))


class Machine:
    """A box whose Pythons have boto3 or not, and whose pip works or not."""

    def __init__(self, own: bool, pip: bool = True) -> None:
        self.own, self.pip, self.made = own, pip, False
        self.scripts: list[str] = []

    def run(self, command: str, *, stdin: bytes = b"", **_: Any) -> Completed:
        if command == "sh -s":
            self.scripts.append(stdin.decode())
            self.made = self.pip
            return Completed(0 if self.pip else 1, "", "no network")
        venv = "/push'/bin/python -" in command
        fits = self.made if venv else self.own
        python = "/root/push/bin/python" if venv else "/usr/bin/python3"
        return Completed(0, json.dumps({"python": python, "boto3": fits}), "")

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None: ...

    def close(self) -> None: ...


def test_a_python_that_has_boto3_is_taken_as_it_is() -> None:
    machine = Machine(own=True)
    assert outfit.push_python(machine, "", "root") == "/usr/bin/python3"
    assert machine.scripts == []


def test_else_one_is_made_that_the_trainer_does_not_see() -> None:
    machine = Machine(own=False)
    assert outfit.push_python(machine, "", "root") == "/root/push/bin/python"
    assert "-m venv 'root/push'" in machine.scripts[0]


def test_a_box_without_an_index_says_so() -> None:
    machine = Machine(own=False, pip=False)
    with pytest.raises(CommandFailed, match="no network"):
        outfit.push_python(machine, "", "root")
    assert len(machine.scripts) == outfit.PACKAGES_TRIES
