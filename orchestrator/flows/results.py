"""What the end of a task means for the run: an event, another try, or an end to trying."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from orchestrator.core.run import Instance, Run, Seal
from orchestrator.errors import (
    CommandFailed,
    GpujobError,
    HostKeyChanged,
    IntegrityError,
    Locked,
    LostAnswer,
    Missing,
    NoCapacity,
    NotFound,
    Refused,
    StorageBlocked,
    Transient,
    Unreachable,
    Unusable,
    Wiped,
)
from orchestrator.flows.box import Looked, endpoint_of
from orchestrator.flows.fleet import describe
from orchestrator.flows.hold import Hold, shorten
from orchestrator.flows.link import Link
from orchestrator.flows.rented import Rented
from orchestrator.flows.stores import told_by
from orchestrator.flows.transfers import Transfers
from orchestrator.flows.upkeep import Upkeep
from orchestrator.flows.worth import Fetched, Weighed
from orchestrator.ports import Provider, Task, TaskContext
from remote.contract import ContractError, Manifest

log = logging.getLogger(__name__)

UNEXPECTED_TRIES = 4
BAD_TRIES = 4
PAUSE_S = {"stop": 5.0, "ack": 1.0, "access": 10.0}


class Results:
    """Takes in what the tasks of one run reported and how they ended."""

    def __init__(
        self, hold: Hold, rented: Rented, link: Link, transfers: Transfers, upkeep: Upkeep
    ) -> None:
        self._hold = hold
        self._rented = rented
        self._link = link
        self._transfers = transfers
        self._upkeep = upkeep
        self.gave_up: dict[str, str] = {}
        self.reached: set[str] = set()
        self.troubles: dict[str, str] = {}

    def take(self) -> None:
        tasks = self._hold.world.tasks
        for full_key in tasks.all(self._hold.prefix):
            key = full_key.removeprefix(self._hold.prefix)
            verb, _, rest = key.partition(":")
            self._take_reports(verb, rest, key, tasks.reports(full_key))
            task = tasks.take(full_key)
            if task:
                self._take_end(verb, rest, key, task)

    def _take_reports(self, verb: str, rest: str, key: str, said: list[Any]) -> None:
        if verb == "follow":
            if self._link.take_in(rest, said):
                # A link that carried something and broke is made again at once.
                self._hold.backoff.cleared(key)
            elif self._link.is_deaf(rest):
                self._hold.cancel(key)
            blocked = self._link.blocked()
            if blocked and not self._hold.run().paused:
                self._upkeep.blocked(blocked)
            return
        if verb == "prepare" and said:
            self.reached.add(rest)
        self._transfers.moved(said, self._hold.now())

    def _take_end(self, verb: str, rest: str, key: str, task: Task) -> None:
        if task.state == "done":
            self._hold.backoff.cleared(key)
            self.troubles.pop(verb, None)
            self._succeeded(verb, rest, key, task.result)
        else:
            said = self._hold.redactor.any(describe(task.error))
            log.info("%s %s failed: %s", self._hold.lease.run, key, said)
            self.troubles[verb] = shorten(said)
            self._failed(verb, rest, key, task.error or RuntimeError("no reason"))

    # What succeeded

    def _succeeded(self, verb: str, rest: str, key: str, result: Any) -> None:
        if verb in PAUSE_S:
            self._hold.pause(key, PAUSE_S[verb])
        match verb:
            case "create":
                self._created(rest, result)
            case "prepare":
                self._hold.record("instance.prepared", instance=rest)
            case "start":
                self._started(int(rest))
            case "terminate":
                self._rented.terminated(self._hold.run().find_instance(rest))
            case "fetch":
                self._fetched(key, result)
            case "ack":
                self._looked_through(result)
            case "prune":
                self._pruned(result)
            case "room":
                self._upkeep.room_told(result)
            case "follow":
                self._link.ended(rest)
            case "rekey":
                self._rekeyed(rest, made_anew=result)
            case "look":
                self._looked(rest, result)
            case "logs":
                self._keep_logs(rest, result)
            case "dump":
                self._dumped(int(rest), result)

    def _created(self, instance: str, provider_id: str) -> None:
        self._hold.record("instance.created", instance=instance, provider_id=provider_id)
        offer = self._hold.run().find_instance(instance)
        self._hold.backoff.cleared(f"rent:{offer.provider}")

    def _started(self, number: int) -> None:
        attempt = self._hold.run().attempts[number - 1]
        self._link.agent_started(attempt.instance)
        if attempt.started_at is None:
            self._hold.record("attempt.started", attempt=number)

    def _fetched(self, key: str, got: Fetched) -> None:
        if self._transfers.from_store(key) and self._hold.run().store_trouble:
            self._hold.record("store.answered")
        seal = self._transfers.ended(key)
        self._upkeep.fetched()
        if seal:
            told = {"digest": seal.digest, "path": got.path, "metrics": got.metrics}
            self._tell_of(seal, "checkpoint.mirrored", **told)

    def _looked_through(self, found: Looked) -> None:
        for seal in found.held:
            self._tell_of(seal, "checkpoint.acked")
        for digest, name in {seal.digest: seal.name for seal in found.gone}.items():
            self._hold.record("requested.fetch", name=name, digest=digest)

    def _pruned(self, found: Weighed) -> None:
        seal = found.seal
        if found.metrics:
            self._upkeep.weighed(found)
            return
        path = self._hold.run().mirrored.get(seal.digest, "")
        self._tell_of(seal, "checkpoint.pruned", digest=seal.digest, path=path)

    def _tell_of(self, seal: Seal, kind: str, **data: Any) -> None:
        self._hold.record(
            kind, instance=seal.instance, name=seal.name, generation=seal.generation, **data
        )

    def _looked(self, instance: str, found: list[tuple[str, Manifest]]) -> None:
        """What a lost box pushed is as good as what it told."""
        news = 0
        for uri, manifest in found:
            try:
                for kind, data in told_by(self._hold.run(), instance, uri, manifest):
                    self._hold.record(kind, **data)
                    news += kind == "checkpoint.pushed"
            except ContractError as error:
                log.warning("%s is passed over: %s", uri, error)
        message = f"{len(found)} checkpoints, {news} of them unheard of"
        self._hold.record("instance.looked", instance=instance, message=message)

    def _dumped(self, number: int, words: str) -> None:
        instance = self._hold.run().attempts[number - 1].instance
        place = self._hold.folder / instance / f"hang-{number}"
        self._hold.record("attempt.dumped", attempt=number, words=words, place=str(place))

    def _keep_logs(self, instance: str, text: str) -> None:
        path = self._hold.folder / instance / "provider.log"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(self._hold.redactor.any(text))

    # What failed

    def _failed(self, verb: str, rest: str, key: str, error: Exception) -> None:
        failures = self._hold.backoff.failed(key, self._hold.now())
        run = self._hold.run()
        if isinstance(error, HostKeyChanged):
            self._ask_for_keys(run)
        if isinstance(error, Locked):
            self._ask_for_access(run)
        if isinstance(error, Wiped):
            self._wiped(run, error)
        if isinstance(error, StorageBlocked):
            self._upkeep.blocked(error)
        match verb:
            case "create":
                self._create_failed(rest, error)
            case "fetch":
                self._fetch_failed(key, error)
            case "look":
                if isinstance(error, Refused | Missing | NotFound):
                    self._hold.record("instance.looked", instance=rest, message=describe(error))
            case "follow":
                self._link.ended(rest)
            case "dump":
                self._dumped(int(rest), f"nothing could be taken down: {describe(error)}")
            case "rekey":
                # A log that cannot be read says nothing about the box.
                if isinstance(error, HostKeyChanged):
                    self._lost(rest, f"another machine answers in its place: {describe(error)}")
            case "start" | "prepare":
                self._set_up_failed(verb, rest, key, error, failures)

    def _create_failed(self, instance: str, error: Exception) -> None:
        """Nothing was rented for sure: on record, and the next offer. Anything else, a fault of
        ours too: the list has to say."""
        self._rented.create_failed(instance)
        if isinstance(error, LostAnswer) or not isinstance(error, GpujobError):
            return
        provider = self._hold.run().find_instance(instance).provider
        why = "refused"
        if isinstance(error, NoCapacity):
            why = "no_capacity"
        elif isinstance(error, Transient):
            why = "transient" if error.retry_s is None else "patience"
            self._hold.backoff.failed(f"rent:{provider}", self._hold.now())
            if error.retry_s is not None:
                self._hold.pause(f"rent:{provider}", error.retry_s)
        self._hold.record(
            "instance.refused",
            instance=instance,
            why=why,
            message=describe(error),
            provider_wide=isinstance(error, Refused) and error.provider_wide,
        )

    def _fetch_failed(self, key: str, error: Exception) -> None:
        """Bytes that are wrong again and again are not asked for there any more. A store that says
        no has said nothing of them: the keys or the bucket may be put right."""
        stored = self._transfers.from_store(key)
        seal = self._transfers.ended(key)
        bad = IntegrityError if stored else IntegrityError | NotFound | Refused
        if stored and isinstance(error, NotFound | Refused) and not self._hold.run().store_trouble:
            self._hold.record("store.refused", message=describe(error))
        if seal is None or not isinstance(error, bad):
            return
        if self._transfers.refused(key, stored=stored) >= BAD_TRIES:
            where = "store" if stored else "box"
            self._tell_of(seal, "checkpoint.failed", reason=describe(error), where=where)

    def _set_up_failed(
        self, verb: str, rest: str, key: str, error: Exception, failures: int
    ) -> None:
        run = self._hold.run()
        instance = rest if verb == "prepare" else run.attempts[int(rest) - 1].instance
        if isinstance(error, Unusable):
            self._lost(instance, describe(error))
        elif verb == "start" and isinstance(error, IntegrityError) and error.digest:
            self._abandon(int(rest), error)
        elif _hopeless(verb, error, failures):
            self.gave_up[key] = describe(error)

    def _abandon(self, number: int, error: IntegrityError) -> None:
        """The checkpoint to begin with is not what it was. Of those to resume from an older one may
        be; what an earlier phase left there is no other of."""
        self._hold.record(
            "attempt.abandoned",
            attempt=number,
            digest=error.digest,
            reason=describe(error),
        )

    def _wiped(self, run: Run, error: Wiped) -> None:
        """The box answers and holds nothing of ours; several tasks may have found that out."""
        instance = run.instance
        if instance and instance.prepared:
            self._rented.restarted(run, instance, describe(error))

    def _lost(self, instance: str, reason: str) -> None:
        if self._hold.run().find_instance(instance).usable:
            self._hold.record("instance.lost", instance=instance, reason=reason)

    def _ask_for_keys(self, run: Run) -> None:
        """Somebody else answers, or the box was made anew: its provider knows, where it tells
        host keys. Where it does not, nothing is sent there until the deadline gives it up."""
        instance = run.instance
        if instance is None or not instance.booted:
            return
        if self._hold.provider(instance).capabilities.host_keys:
            self._ask("rekey", _rekey, instance)

    def _ask_for_access(self, run: Run) -> None:
        """A restart may have lost our key; whatever was under way goes on once it is back."""
        instance = run.instance
        if instance and instance.prepared:
            self._ask("access", _let_in, instance)

    def _ask(self, verb: str, fn: Callable[..., Any], instance: Instance) -> None:
        key = f"{verb}:{instance.id}"
        if key not in self._hold.busy() | self._hold.waiting():
            self._hold.begin(key, fn, self._hold, self._hold.provider(instance), instance)

    def _rekeyed(self, instance_id: str, *, made_anew: bool) -> None:
        run = self._hold.run()
        instance = run.find_instance(instance_id)
        if made_anew and instance.usable:
            reason = "it has a new host key, and its provider confirms it"
            self._rented.restarted(run, instance, reason)


def _rekey(_: TaskContext, hold: Hold, provider: Provider, instance: Instance) -> bool:
    """Whether the box was made anew. Raises HostKeyChanged when another machine answers."""
    keys = provider.host_keys(instance.provider_id or "")
    if not keys:
        raise Transient("its provider tells no host key now")
    where = endpoint_of(instance)
    return hold.world.boxes.repin(instance.id, hold.lease.run, keys, where.host, where.port)


def _let_in(_: TaskContext, hold: Hold, provider: Provider, instance: Instance) -> None:
    provider.ensure_access(instance.provider_id or "", hold.world.boxes.public_key())


def _hopeless(verb: str, error: Exception, failures: int) -> bool:
    """Whether trying again cannot help: what the job asks for is wrong, or it was tried."""
    if isinstance(error, Unreachable | Transient | HostKeyChanged | Wiped | StorageBlocked):
        return False
    if verb == "prepare" and isinstance(error, CommandFailed | Missing | IntegrityError):
        return True
    return failures >= UNEXPECTED_TRIES
