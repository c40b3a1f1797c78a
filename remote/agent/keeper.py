"""Follows the trainer's checkpoints: pins what is new, has sealed what is complete, drops what
never was. The disk decides, so a new supervisor goes on where a killed one stopped."""

from __future__ import annotations

import shutil
import time
from typing import Callable, Dict, Iterator, List, Optional, Tuple, Union

from remote.agent import judge, layouts
from remote.agent.attempt import Attempt
from remote.agent.candidates import FINAL, Candidate, Found, find
from remote.agent.complaints import Complaints
from remote.agent.copies import Copies
from remote.agent.facts import Facts, read
from remote.agent.held import held_bytes
from remote.agent.intact import is_intact
from remote.agent.judge import Complete, Incomplete, Waiting
from remote.agent.known import Known
from remote.agent.paths import Root
from remote.agent.patience import Patience
from remote.agent.pin import Pin
from remote.agent.ranks import Ranks
from remote.agent.referee import Referee
from remote.agent.scan import from_json, list_files
from remote.agent.sealer import Sealer
from remote.agent.sealing import Changed, Job
from remote.agent.spec import Spec
from remote.contract import MARKER, ContractError

RETRY_S = 5.0
RELOOK_S = 1.0  # at what is sealed: it may be written again
STRANGE_S = 60.0  # before what could not be looked at is looked at again
WEIGH_S = 10.0
UNHELD_S = 60.0  # after the trainer's end, for what could not be linked or copied until then


class Keeper:
    """The pins and seals of one attempt. `clock` is monotonic. One thread calls."""

    def __init__(
        self,
        root: Root,
        facts: Facts,
        attempt: Attempt,
        spec: Spec,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._facts = facts
        self.attempt = attempt
        self._spec = spec
        self._clock = clock
        for folder in (root.pins, root.seals, root.pinned):
            folder.mkdir(parents=True, exist_ok=True)
        self._copies = Copies(root.pins / ".copying")
        self._ranks = Ranks(attempt, spec.world_size, clock)
        self._known = Known()
        self._sealer = Sealer(root, facts, self._known, clock)
        self._complaints = Complaints(facts)
        for place, why in self._sealer.unreadable.items():
            self._complaints.say(
                "the sealed checkpoint %s cannot be read here: %s. It stays on this box as it is,"
                " and is neither copied nor deleted" % (place, why)
            )
        self._patience = Patience()
        self._pins: Dict[str, Pin] = {}
        self._found = Found({})
        self._referee = Referee(attempt, spec, self._ranks)
        self._not_before: Dict[str, float] = {}
        self._look_again: Dict[str, float] = {}
        self._held = (float("-inf"), 0)
        self._recall()

    def step(self, *, ended: bool) -> None:
        """One look at everything, and what follows from it. `ended`: the trainer has, and this
        was known before the call. Raises OSError when facts cannot be written; then all else was
        done."""
        self._collect()
        self._look_around()
        with self._complaints.about(FINAL):
            self._look_at_root()
        for pin in list(self._pins.values()):
            with self._complaints.about(pin.name):
                self._judge(pin, ended=ended)
        self._sealer.tell()

    def finish(self, rc: int) -> bool:
        """After the trainer's end and a step: whether all that it left is sealed or dropped.

        Weights at the root are final once no checkpoint is under way any more."""
        if self._pins or not self._sealer.is_idle:
            return False
        with self._complaints.about(FINAL):
            self._find_final(rc)
        return not self._pins

    def tidy(self) -> None:
        """What need not be done at every step. Raises OSError when facts cannot be written; what
        was to be let go is gone then."""
        self._sealer.tidy()
        self._sealer.tell()

    @property
    def pinning(self) -> List[str]:
        return sorted(self._pins)

    @property
    def held_bytes(self) -> int:
        """Disk that pins and seals occupy beyond the trainer's own files; weighed now and then."""
        weighed_at, size = self._held
        if self._clock() - weighed_at >= WEIGH_S:
            size = held_bytes((self._root.pins, self._root.seals))
            self._held = self._clock(), size
        return size

    @property
    def is_busy(self) -> bool:
        """Whether something was written lately, so that looking often is worth it."""
        now = self._clock()
        return any(now - pin.changed_at < 2 * judge.LONG_STILL_S for pin in self._pins.values())

    def close(self) -> None:
        """Wait for what is under way in other threads."""
        self._sealer.close()
        self._copies.close()

    def _recall(self) -> None:
        """What is not the attempt's work, and what an earlier supervisor had under way."""
        known = self.attempt.read("baseline.json").get("known")
        for name, listing in (known or {}).items():
            self._known.add(name, from_json(listing))
        for fact in read(self._root.events):
            if fact.kind == "checkpoint.dropped" and isinstance(fact.data.get("generation"), int):
                self._known.use(str(fact.data.get("name")), fact.data["generation"])
        for name, generation in self._left():
            self._open(name, generation)

    def _left(self) -> Iterator[Tuple[str, int]]:
        """Pins that are not sealed; what is left of the others goes."""
        for folder in sorted(self._root.pins.iterdir()):
            name, _, number = folder.name.rpartition(".")
            sealed = (self._root.seals / folder.name / "manifest.json").exists()
            if not number.isdigit() or sealed:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                yield name, int(number)

    def _open(self, name: str, generation: int) -> Pin:
        pin = Pin.open(self._root.pins, name, generation, self._copies, self._clock())
        self._pins[name] = pin
        self._known.use(name, generation)
        return pin

    def _look_around(self) -> None:
        with self._complaints.about("the checkpoint folder"):
            self._found = find(self._spec.layouts, self._spec.checkpoints)
        found = self._found
        for name in found.refused:
            self._complaints.say(
                "%r is not mirrored: the name is taken, or none that a checkpoint may have" % name
            )
        for name, candidate in found.candidates.items():
            with self._complaints.about(name):
                self._look(candidate)
        for name, pin in self._pins.items():
            if name not in found.candidates and name != FINAL and not self._is_sealing(pin):
                with self._complaints.about(name):
                    pin.update(pin.folder.joinpath, {}, self._clock())

    def _look(self, candidate: Candidate) -> None:
        name, now = candidate.name, self._clock()
        pin = self._pins.get(name)
        if now < self._look_again.get(name, now) or (pin and self._is_sealing(pin)):
            return
        try:
            own = candidate.own()
        except ContractError:
            self._look_again[name] = now + STRANGE_S
            raise
        if pin is None:
            if not self._known.is_another(name, own):
                self._look_again[name] = now + (RELOOK_S if own else 0)
                return
            self._referee.note(candidate)
            pin = self._open(name, self._known.generation(name) + 1)
        shared = candidate.shared(own)
        pin.shared.update(shared)
        listing = {**own, **shared}
        pin.update(candidate.locate, listing, now, copy=candidate.layout.rewritten)

    def _look_at_root(self) -> None:
        """Our own trainer marks its final weights and waits until they are pinned."""
        folder, pin = self._spec.checkpoints, self._pins.get(FINAL)
        if self._sealer.is_sealing(FINAL) or (pin is None and not (folder / MARKER).exists()):
            return
        listing = self._known.fresh(FINAL, list_files(folder))
        if pin is None:
            if MARKER not in listing:
                return
            pin = self._open(FINAL, self._known.generation(FINAL) + 1)
        pin.update(folder.joinpath, listing, self._clock())

    def _find_final(self, rc: int) -> None:
        """After an error, weights may be cut short: their own containers have to agree. Where a
        trainer leaves no weights of its own at the end, its last checkpoint is what it made."""
        folder = self._spec.checkpoints
        listing = self._known.fresh(FINAL, list_files(folder))
        whole = rc == 0 or all(is_intact(folder / path) for path in layouts.weights(listing))
        if whole and judge.by_root(folder, listing):
            pin = self._open(FINAL, self._known.generation(FINAL) + 1)
            pin.update(folder.joinpath, listing, self._clock())
        elif rc == 0:
            self._sealer.end_with_last(self.attempt.number, self._ends_with_last)

    def _ends_with_last(self, name: str) -> bool:
        layout = self._referee.layout_of(name)
        return layout is not None and not layout.ends_at_root

    def _judge(self, pin: Pin, *, ended: bool) -> None:
        now = self._clock()
        if self._is_sealing(pin) or now < self._not_before.get(pin.name, now):
            return
        complete = self._by_marker(pin)
        if complete is None and not pin.is_whole:
            if ended and not pin.is_coming and now - pin.changed_at > UNHELD_S:
                self._drop(pin, "copy of it, which there was no room for or no way to make")
            return
        verdict = complete or self._referee.verdict(
            pin,
            self._newness(pin),
            newest=self._found.newest,
            usual=self._sealer.newest_files(self.attempt.number),
            now=now,
            ended=ended,
        )
        if isinstance(verdict, Complete):
            self._seal(pin, verdict, final=pin.name == FINAL or self._referee.is_final(pin.name))
        elif isinstance(verdict, Incomplete) and (pin.gone or ended):
            if verdict.weights and ended and self.attempt.exit_code() == 0:
                self._seal(pin, verdict.weights, final=True, resumes=False)
            else:
                self._drop(pin, verdict.why)
        elif self._patience.is_over(pin, now):
            self._complaints.say(
                "%s (generation %d) is not complete and nobody writes to it: %s."
                " Earlier checkpoints are kept" % (pin.name, pin.generation, _words(verdict))
            )

    def _by_marker(self, pin: Pin) -> Optional[Complete]:
        complete = None
        with self._complaints.about(pin.name):
            complete = judge.by_marker(pin, self._newness(pin))
        if complete:
            (self._root.pinned / ("%s.%s" % (pin.name, complete.nonce))).touch()
        return complete

    def _newness(self, pin: Pin) -> Callable[[str], bool]:
        return lambda path: (
            path in pin.shared or not self._known.has(pin.name, path, pin.files[path])
        )

    def _is_sealing(self, pin: Pin) -> bool:
        return self._sealer.is_sealing(pin.name)

    def _seal(self, pin: Pin, complete: Complete, *, final: bool, resumes: bool = True) -> None:
        layout = self._referee.layout_of(pin.name)
        self._ranks.wrote(complete.world_size or 0)
        self._patience.learn(pin)
        self._tell_left_behind(pin)
        self._sealer.submit(
            Job(
                seals=self._root.seals,
                pin=pin.folder,
                files={path: pin.files[path] for path in layouts.fetch_order(complete.files)},
                copied=frozenset(pin.copied),
                known=pin.own,
                name=pin.name,
                generation=pin.generation,
                attempt=self.attempt.number,
                step=complete.step,
                max_steps=complete.max_steps,
                world_size=complete.world_size,
                final=final,
                resumes=resumes and (layout is None or layout.resumes),
            )
        )

    def _tell_left_behind(self, pin: Pin) -> None:
        candidate = self._found.candidates.get(pin.name)
        strange = candidate.left_behind() if candidate else {}
        if strange:
            words = ", ".join("%r (%s)" % each for each in sorted(strange.items())[:10])
            self._complaints.say("%s is sealed without %s" % (pin.name, words))

    def _collect(self) -> None:
        for job, future in self._sealer.finished():
            with self._complaints.about(job.name):
                error = future.exception()
                if error is None:
                    self._remove(self._pins[job.name])
                    continue
                self._pins[job.name].changed_at = self._clock()
                if not isinstance(error, Changed):
                    self._not_before[job.name] = self._clock() + RETRY_S
                    raise error

    def _drop(self, pin: Pin, why: str) -> None:
        self._facts.tell(
            "checkpoint.dropped",
            attempt=self.attempt.number,
            name=pin.name,
            generation=pin.generation,
            why="incomplete: no %s" % why,
        )
        self._known.add(pin.name, pin.own)
        self._remove(pin)

    def _remove(self, pin: Pin) -> None:
        shutil.rmtree(pin.folder, ignore_errors=True)
        del self._pins[pin.name]


def _words(verdict: Union[Waiting, Incomplete]) -> str:
    return "no %s" % verdict.why if isinstance(verdict, Incomplete) else verdict.why
