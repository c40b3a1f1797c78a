"""A whole run on an emulated cloud with one fault, and the account as the judge of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kit.cloud import Cloud
from kit.gpujob import Place, wait_until

# Real clouds take minutes where these take seconds; what waits for them waits as much less. Where a
# box is to be given up that takes `wait_s`; any other has the time of a machine that is too busy.
PATIENT_S, BRIEF_S = 45, 12


def config(kind: str, wait_s: int = PATIENT_S) -> str:
    """The settings of one emulated cloud."""
    return f"""
[{kind}]
poll_s = 0.2
idle_poll_s = 0.2
listing_lag_s = 2
absent_s = 1.5
assign_s = {wait_s}
start_s = {wait_s}
endpoint_s = {wait_s}
timeout_s = 4
requests_per_minute = 100000
[deadlines]
access_s = {wait_s * 1.5}
deaf_s = {wait_s * 2 / 3}
silent_s = 60
capacity_s = 3
"""


STEPS, EVERY = 40, 10
NAMES = {f"checkpoint-{step}" for step in range(EVERY, STEPS + 1, EVERY)} | {"final"}
TRAINS = f"--steps {STEPS} --every {EVERY}"
GPUS: Mapping[str, list[str]] = {"thunder": ["A6000:1", "L40:1"], "runpod": ["A40:1", "L40S:1"]}


@dataclass(frozen=True)
class Row:
    """One fault, how it is armed (from the start, or `midway`, once a checkpoint is here), and what
    must come of it. `boxes` is how many the account was
    billed for; `tells` are kinds of events that the ledger must hold."""

    fault: str
    params: Mapping[str, Any] = field(default_factory=dict)
    state: str = "SUCCEEDED"
    exit_code: int = 0
    boxes: int = 1
    tells: tuple[str, ...] = ()
    says: str = ""
    launches: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    midway: bool = False
    also: tuple[tuple[str, Mapping[str, Any]], ...] = ()


# One of each kind, at one of the clouds: an answer that is lost, a refusal, a boot that fails, a
# box that is lost, wiped, restarted or moved, a list that is wrong.
ALWAYS = {
    "runpod": {
        *("create-500-but-created", "no-capacity", "unauthorized", "stuck-starting"),
        "container-restarts",
    },
    "thunder": {"done-then-502", "token-revoked", "vanishes", "address-changes", "index-moves"},
}


def cases(rows: Iterable[Row], *, of: str) -> list[Any]:
    """The rows as pytest parameters; `make faults` runs them all, `make test` those of ALWAYS."""
    return [
        pytest.param(row, id=row.fault, marks=[] if row.fault in ALWAYS[of] else [pytest.mark.long])
        for row in rows
    ]


class Story:
    """One emulated account and one state folder; the account is the only oracle of money."""

    def __init__(self, folder: Path, kind: str, **options: Any) -> None:
        self.kind = kind
        self.cloud = Cloud.start(
            folder / "cloud", kind, **{"requests_per_minute": 100000, **options}
        )
        self.place = Place(folder / "place")
        self.configure(PATIENT_S)

    def configure(self, wait_s: int) -> None:
        (self.place.state / "config.toml").write_text(config(self.kind, wait_s))

    def job(self, *, step_s: float = 0.1, **keys: Any) -> Path:
        resources = {"providers": [self.kind], "gpu": GPUS[self.kind]}
        record = self.place.folder / "record.jsonl"
        command = f"{TRAINS} --step-s {step_s} --record {record}"
        return self.place.job(command, resources=resources, **keys)

    def launch(self, **keys: Any) -> str:
        return self.place.launch(self.job(**keys), **self.cloud.env())

    def watch(self, run: str, timeout_s: float = 150.0) -> int:
        return self.place.run("watch", run, check=None, timeout_s=timeout_s).returncode

    def close(self) -> None:
        try:
            self.place.close()
        finally:
            self.cloud.close()

    def tell(self, row: Row) -> str | None:
        """Arm, launch, follow to the end, and hold the account against the ledger."""
        self.configure(PATIENT_S if row.boxes == 1 else BRIEF_S)
        for fault, params in (*row.also, *(() if row.midway else ((row.fault, row.params),))):
            self.cloud.fault(fault, **params)
        step_s = 0.4 if row.midway else 0.1
        words = ("launch", str(self.job(step_s=step_s, **row.more)), "--yes", "--detach")
        said = self.place.run(*words, check=None, **self.cloud.env())
        if not row.launches:
            assert said.returncode == row.exit_code, said.stderr
            assert row.says in said.stderr, said.stderr
            self.check_nothing_bills()
            assert self.cloud.bill()["intervals"] == []
            return None
        assert said.returncode == 0, said.stderr
        run = said.stdout.split("launched ")[1].split()[0]
        if row.midway:
            wait_until(lambda: bool(self.place.published()), 60, "a checkpoint that is here")
            assert self.place.record(run)["state"] == "RUNNING", "too late for a fault midway"
            self.cloud.fault(row.fault, **row.params)
        code = self.watch(run)
        record = self.place.record(run)
        history = self.history(run)
        assert (record["state"], code) == (row.state, row.exit_code), history
        assert row.says in record["reason"], record["reason"]
        missing = set(row.tells) - set(self.place.kinds(run))
        assert not missing, f"the ledger does not tell of {missing}\n{history}"
        self.check_nothing_bills()
        self.check_one_at_a_time()
        self.check_cost(run)
        billed = {each["instance"] for each in self.cloud.bill()["intervals"]}
        assert len(billed) == row.boxes, f"{billed}\n{history}"
        if row.state == "SUCCEEDED":
            self.check_checkpoints()
        assert self.cloud.violations() == []
        return run

    def check_nothing_bills(self) -> None:
        ours = [each for each in self.cloud.instances() if each["mark"]]
        assert ours == [], "left in the account"
        running = set(self.cloud.bill()["running"])
        assert running <= {each["id"] for each in self.cloud.instances()}

    def check_one_at_a_time(self) -> None:
        """No two instances of ours bill at once."""
        spans: dict[str, list[str]] = {}
        for each in self.cloud.bill()["intervals"]:
            if each["mark"]:
                span = spans.setdefault(each["instance"], [each["from"], each["to"]])
                span[1] = each["to"]
        for first, second in pairwise(sorted(spans.values())):
            assert first[1] <= second[0], f"rented twice at once: {spans}"

    def check_cost(self, run: str) -> None:
        """The ledger's cost is the billing log's to 1 %, and to what a third of a second costs:
        these runs last ten, and an answer takes its time. The demo's runs are held to 1 %."""
        intervals = [each for each in self.cloud.bill()["intervals"] if each["mark"]]
        billed = sum(each["usd"] for each in intervals)
        answers = sum(each["usd_per_hour"] for each in intervals) / 3600 / 3
        told = self.place.record(run)["cost_usd"]
        near = abs(told - billed) <= 0.01 * billed + answers
        assert near, f"the ledger says {told}, the bill {billed}"

    def check_checkpoints(self) -> None:
        """All are here, with the bytes that the trainer says it wrote."""
        published = set(self.place.published())
        assert {name.partition("~")[0] for name in published} == NAMES, published
        lines = (self.place.folder / "record.jsonl").read_text().splitlines()
        for each in map(json.loads, lines):
            for path in each["files"]:
                assert (self.place.folder / "mirror" / each["name"] / path).is_file()

    def history(self, run: str) -> str:
        return self.place.run("events", run).stdout + self.daemon_log()

    def daemon_log(self) -> str:
        log = self.place.state / "daemon.log"
        return log.read_text()[-3000:] if log.exists() else ""
