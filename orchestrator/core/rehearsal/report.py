"""What a rehearsal found: what it proved, each mistake with the key to change, and the rest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """`key` is the job file's, or a file and its key; `words` what is wrong, `advice` what to
    write there instead. Of several mistakes `about` one thing, such as a column, one is told."""

    key: str
    words: str
    advice: str = ""
    about: str = ""


@dataclass(frozen=True)
class Report:
    """`proven` was seen to work here, `unproven` only the real machine can tell. `own` names the
    phases whose trainer was the user's own code, `stand_ins` those where it was not."""

    proven: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    unproven: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    run: str = ""
    took_s: float = 0.0
    folder: str = ""

    @property
    def passed(self) -> bool:
        return not self.mistakes
