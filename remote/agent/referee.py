"""Which layout's rule a pinned checkpoint is judged by, and what the rule gets to know."""

from __future__ import annotations

from typing import Dict, FrozenSet, Optional, Tuple

from remote.agent import judge
from remote.agent.attempt import Attempt
from remote.agent.candidates import FINAL, Candidate
from remote.agent.durable import write_json
from remote.agent.judge import Incomplete, IsNew, Verdict
from remote.agent.layouts import Context, Layout
from remote.agent.pin import Pin
from remote.agent.ranks import Ranks
from remote.agent.spec import Spec
from remote.contract import PROTOCOL

MAX_POINTER_BYTES = 4096
NOTES = "layouts.json"


class Referee:
    """Of one attempt. What a name was taken for outlives the supervisor."""

    def __init__(self, attempt: Attempt, spec: Spec, ranks: Ranks) -> None:
        self._attempt = attempt
        self._spec = spec
        self._ranks = ranks
        self._judged: Dict[str, Tuple[object, Incomplete]] = {}
        noted = attempt.read(NOTES)
        self._layouts: Dict[str, Layout] = {
            name: layout for layout in spec.layouts for name in noted if noted[name] == layout.name
        }

    def note(self, candidate: Candidate) -> None:
        """Whose it is, for a supervisor that comes after the trainer has deleted it."""
        self._layouts[candidate.name] = candidate.layout
        noted = {name: layout.name for name, layout in self._layouts.items()}
        write_json(self._attempt.folder / NOTES, {"v": PROTOCOL, **noted}, durable=False)

    def layout_of(self, name: str) -> Optional[Layout]:
        """As it was found; the name tells it of what an earlier attempt sealed."""
        fitting = (each for each in self._spec.layouts if each.match(name) is not None)
        return self._layouts.get(name) or next(fitting, None)

    def is_final(self, name: str) -> bool:
        layout = self.layout_of(name)
        return layout is not None and layout.is_final(name)

    def verdict(
        self,
        pin: Pin,
        is_new: IsNew,
        *,
        newest: Optional[int],
        usual: Optional[FrozenSet[str]],
        now: float,
        ended: bool,
    ) -> Verdict:
        """What was incomplete is looked into again when something has changed. `newest`: the
        highest step that has begun to be saved; `usual`: the files of the newest seal."""
        if pin.name == FINAL:
            found = judge.by_root(pin.folder, pin.current) if ended else None
            return found or Incomplete("the weights that its marker names")
        layout = self.layout_of(pin.name)
        if layout is None:
            return Incomplete("layout that has such a name")
        context = self._context(layout, newest=newest, usual=usual, ended=ended)
        picture = (pin.generation, pin.changed_at, pin.gone, context)
        seen = self._judged.get(pin.name)
        if seen and seen[0] == picture:
            return seen[1]
        verdict = judge.by_layout(pin, layout, context, is_new=is_new, now=now)
        if isinstance(verdict, Incomplete):
            self._judged[pin.name] = picture, verdict
        return verdict

    def _context(
        self,
        layout: Layout,
        *,
        newest: Optional[int],
        usual: Optional[FrozenSet[str]],
        ended: bool,
    ) -> Context:
        pointer = layout.pointer.name if layout.pointer else None
        return Context(
            world_size=self._ranks.count(),
            at_least=self._ranks.written,
            beside={pointer: self._head(pointer)} if pointer else {},
            newest=newest,
            usual=usual,
            ended=ended,
        )

    def _head(self, name: str) -> bytes:
        try:
            with (self._spec.checkpoints / name).open("rb") as file:
                return file.read(MAX_POINTER_BYTES)
        except OSError:
            return b""
