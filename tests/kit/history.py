"""Runs made of events, for tests: a history is a list of (kind, data) and folds to a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.fold import fold_all
from orchestrator.core.offer import Offer
from orchestrator.core.run import Event, Run

T0 = datetime(2026, 1, 1, tzinfo=UTC)
BOX = "demo-1-1"
DIGEST = {step: f"{step:064x}" for step in range(201)}
Told = tuple[str, dict[str, Any]]

CHEAP = Offer("local", "cpu-2", "cpu", 2, 2, 8, 20, 1.0)
DEAR = Offer("local", "cpu-4", "cpu", 4, 4, 16, 20, 2.0)
OFFERS = (CHEAP, DEAR)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def run_of(*told: Told, every_s: float = 1.0) -> Run:
    # Its first phase begins with the run, at the same moment.
    first = () if told and told[0][0] == "phase.begun" else (begun(),)
    events = [
        Event("demo-1", seq, at(max(1, seq - 1) * every_s), kind, 1, data)
        for seq, (kind, data) in enumerate([planned(), *first, *told], start=1)
    ]
    return fold_all("demo-1", events)


def planned(**changes: Any) -> Told:
    data = {
        "name": "demo",
        "folder": "/jobs",
        "mirror": "/mirror",
        "usd_per_hour": 1.0,
        "host_loss": 2,
        "crash": 2,
        "budget_usd": None,
        "budget_hours": None,
    }
    return "planned", {**data, **changes}


def begun(name: str = "main", index: int = 0, **changes: Any) -> Told:
    """A phase begins, with the budgets of `planned`."""
    data = {"phase": name, "index": index, "key": "", "mirror": "/mirror", "start": None, "how": ""}
    limits = {"host_loss": 2, "crash": 2}
    return "phase.begun", {**data, **limits, "until_step": None, "instance": None, **changes}


def intended(box: str = BOX, offer: Offer = CHEAP) -> Told:
    return "instance.intended", {
        "instance": box,
        "provider": offer.provider,
        "offer": offer.id,
        "usd_per_hour": offer.usd_per_hour,
        "mark": f"gpujob-0-{box}",
    }


def created(box: str = BOX) -> Told:
    return "instance.created", {"instance": box, "provider_id": f"id-{box}"}


def running(box: str = BOX) -> Told:
    return "instance.running", {
        "instance": box,
        "host": "127.0.0.1",
        "port": 22,
        "user": "me",
        "restart_marker": "m1",
    }


def prepared(box: str = BOX) -> Told:
    return "instance.prepared", {"instance": box}


def lost(box: str = BOX) -> Told:
    return "instance.lost", {"instance": box, "reason": "gone"}


def terminating(box: str = BOX) -> Told:
    return "instance.terminating", {"instance": box}


def gone(box: str = BOX) -> Told:
    return "instance.gone", {"instance": box}


def attempt(number: int = 1, box: str = BOX, resume: int | None = None) -> Told:
    source = None
    if resume is not None:
        source = {"name": f"checkpoint-{resume}", "step": resume, "digest": DIGEST[resume]}
    return "attempt.intended", {"attempt": number, "instance": box, "resume": source}


def started(number: int = 1) -> Told:
    return "attempt.started", {"attempt": number}


def exited(number: int = 1, rc: int = 0, why: str = "ok") -> Told:
    return "attempt.exited", {"attempt": number, "rc": rc, "why": why, "message": "words"}


def settled(number: int = 1) -> Told:
    return "attempt.settled", {"attempt": number}


def sealed(step: int, number: int = 1, box: str = BOX, *, final: bool = False) -> Told:
    return "checkpoint.sealed", {
        "instance": box,
        "attempt": number,
        "name": "final" if final else f"checkpoint-{step}",
        "generation": 1,
        "step": step,
        "max_steps": 60,
        "size_bytes": 1000,
        "digest": DIGEST[step + (100 if final else 0)],
        "final": final,
    }


def mirrored(step: int, box: str = BOX, *, final: bool = False) -> Told:
    name = "final" if final else f"checkpoint-{step}"
    return "checkpoint.mirrored", {
        "instance": box,
        "name": name,
        "generation": 1,
        "digest": DIGEST[step + (100 if final else 0)],
        "path": f"/mirror/{name}",
    }


def acked(step: int, box: str = BOX, *, final: bool = False) -> Told:
    name = "final" if final else f"checkpoint-{step}"
    return "checkpoint.acked", {"instance": box, "name": name, "generation": 1}


def drain(state: str = "SUCCEEDED", code: str = "done") -> Told:
    return "drain.begun", {"outcome": state, "reason": "because", "code": code}


def drained(*missing: str) -> Told:
    return "drain.ended", {"complete": not missing, "missing": list(missing)}


FINISHED: Told = ("run.finished", {})
TEARDOWN: Told = ("requested.teardown", {"reason": "asked"})
BOOTED = (intended(), created(), running())
TRAINING = (*BOOTED, prepared(), attempt(), started())
ENDED = (*TRAINING, sealed(60), exited(), sealed(60, final=True), settled())
