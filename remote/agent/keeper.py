"""Follows the trainer's checkpoint folders: pins what is new, has sealed what is complete, drops
what never was. The disk decides, so a new supervisor goes on where a killed one stopped."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import traceback
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from remote.agent import judge, layouts
from remote.agent.attempt import Attempt
from remote.agent.copies import Copies
from remote.agent.facts import Facts, read
from remote.agent.intact import is_intact
from remote.agent.judge import Complete, Incomplete
from remote.agent.known import Known
from remote.agent.paths import Root
from remote.agent.pin import Pin
from remote.agent.prepare import FINAL
from remote.agent.ranks import Ranks
from remote.agent.scan import checkpoint_folders, from_json, list_files, list_tree
from remote.agent.seal import Changed, Job
from remote.agent.sealer import Sealer
from remote.agent.spec import Spec
from remote.contract import MARKER, ContractError

RETRY_S = 5.0
MAX_COMPLAINTS = 100


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
        self._sealer = Sealer(root, facts, self._known)
        self._pins: Dict[str, Pin] = {}
        self._not_before: Dict[str, float] = {}
        self._complaints: Set[str] = set()
        self._recall()

    def step(self, *, ended: bool) -> None:
        """One look at everything, and what follows from it. `ended`: the trainer has, and this
        was known before the call."""
        self._collect()
        folders = checkpoint_folders(self._spec.checkpoints)
        for name in [*folders, *(name for name in self._pins if name not in folders)]:
            if name != FINAL:
                with self._complaining(name):
                    self._look(name)
        with self._complaining(FINAL):
            self._look_at_root()
        for pin in list(self._pins.values()):
            with self._complaining(pin.name):
                self._judge(pin, ended=ended)

    def finish(self, rc: int) -> bool:
        """After the trainer's end and a step: whether all that it left is sealed or dropped.

        Weights at the root are final once no checkpoint is under way any more."""
        if self._pins or not self._sealer.is_idle:
            return False
        with self._complaining(FINAL):
            self._find_final(rc)
        return not self._pins

    def tidy(self) -> None:
        """What need not be done at every step. Raises OSError when facts cannot be written."""
        self._sealer.tell()
        self._sealer.tidy()

    @property
    def pinning(self) -> List[str]:
        return sorted(self._pins)

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

    def _look(self, name: str) -> None:
        if self._sealer.is_sealing(name):
            return
        folder = self._spec.checkpoints / name
        listing = list_tree(folder)
        pin = self._pins.get(name)
        if pin is None:
            if not self._known.is_another(name, listing):
                return
            pin = self._open(name, self._known.generation(name) + 1)
        pin.update(folder, listing, self._clock())

    def _look_at_root(self) -> None:
        """Our own trainer marks its final weights and waits until they are pinned."""
        if self._sealer.is_sealing(FINAL):
            return
        folder = self._spec.checkpoints
        listing = self._known.fresh(FINAL, list_files(folder))
        pin = self._pins.get(FINAL)
        if pin is None:
            if MARKER not in listing:
                return
            pin = self._open(FINAL, self._known.generation(FINAL) + 1)
        pin.update(folder, listing, self._clock())

    def _find_final(self, rc: int) -> None:
        """After an error, weights may be cut short: their own containers have to agree."""
        folder = self._spec.checkpoints
        listing = self._known.fresh(FINAL, list_files(folder))
        whole = rc == 0 or all(is_intact(folder / path) for path in layouts.weights(listing))
        if whole and judge.by_root(folder, listing):
            pin = self._open(FINAL, self._known.generation(FINAL) + 1)
            pin.update(folder, listing, self._clock())

    def _judge(self, pin: Pin, *, ended: bool) -> None:
        now = self._clock()
        if self._sealer.is_sealing(pin.name) or now < self._not_before.get(pin.name, now):
            return
        complete = self._by_marker(pin)
        if complete is None and not pin.is_whole:
            return
        verdict = complete or self._by_rule(pin, now, ended=ended)
        if isinstance(verdict, Complete):
            self._seal(pin, verdict)
        elif isinstance(verdict, Incomplete) and (pin.gone or ended):
            self._drop(pin, verdict.why)

    def _by_marker(self, pin: Pin) -> Optional[Complete]:
        complete = None
        with self._complaining(pin.name):
            complete = judge.by_marker(pin, self._newness(pin))
        if complete:
            (self._root.pinned / ("%s.%s" % (pin.name, complete.nonce))).touch()
        return complete

    def _by_rule(self, pin: Pin, now: float, *, ended: bool) -> judge.Verdict:
        if pin.name == FINAL:
            found = judge.by_root(pin.folder, pin.current) if ended else None
            return found or Incomplete("the weights that its marker names")
        return judge.by_layout(
            pin, is_new=self._newness(pin), ranks=self._ranks, now=now, ended=ended
        )

    def _newness(self, pin: Pin) -> Callable[[str], bool]:
        return lambda path: not self._known.has(pin.name, path, pin.files[path])

    def _seal(self, pin: Pin, complete: Complete) -> None:
        self._ranks.wrote(complete.world_size or 0)
        self._sealer.submit(
            Job(
                seals=self._root.seals,
                pin=pin.folder,
                files={path: pin.files[path] for path in complete.files},
                copied=frozenset(pin.copied),
                known={**pin.files, **pin.source},
                name=pin.name,
                generation=pin.generation,
                attempt=self.attempt.number,
                step=complete.step,
                max_steps=complete.max_steps,
                world_size=complete.world_size,
                final=pin.name == FINAL,
            )
        )

    def _collect(self) -> None:
        for job, future in self._sealer.finished():
            with self._complaining(job.name):
                error = future.exception()
                if error is None:
                    self._remove(self._pins[job.name])
                    continue
                self._pins[job.name].changed_at = self._clock()
                if not isinstance(error, Changed):
                    self._not_before[job.name] = self._clock() + RETRY_S
                    raise error
        self._sealer.tell()

    def _drop(self, pin: Pin, why: str) -> None:
        self._facts.tell(
            "checkpoint.dropped",
            attempt=self.attempt.number,
            name=pin.name,
            generation=pin.generation,
            why="incomplete: no %s" % why,
        )
        self._known.add(pin.name, {**pin.files, **pin.source})
        self._remove(pin)

    def _remove(self, pin: Pin) -> None:
        shutil.rmtree(pin.folder, ignore_errors=True)
        del self._pins[pin.name]

    @contextlib.contextmanager
    def _complaining(self, name: str) -> Iterator[None]:
        """One strange folder must not end the watch over the others."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, (OSError, ContractError)):
                traceback.print_exc(file=sys.stderr)
            message = "%s: %s: %s" % (name, type(error).__name__, error)
            if message in self._complaints or len(self._complaints) >= MAX_COMPLAINTS:
                return
            self._complaints.add(message)
            with contextlib.suppress(OSError):
                self._facts.tell("agent.error", message=message[:2000])
