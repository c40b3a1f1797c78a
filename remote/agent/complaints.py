"""What the agent has to complain about, each thing once: a strange folder must not end the watch
over the others, nor fill the facts."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Iterator, Set

from remote.agent.facts import Facts
from remote.contract import ContractError

MAX_COMPLAINTS = 100
MAX_LENGTH = 2000


class Complaints:
    """Tells `agent.error`, at most MAX_COMPLAINTS times. One thread complains."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._told: Set[str] = set()

    def say(self, message: str) -> None:
        if message in self._told or len(self._told) >= MAX_COMPLAINTS:
            return
        self._told.add(message)
        with contextlib.suppress(OSError):
            self._facts.tell("agent.error", message=message[:MAX_LENGTH])

    @contextlib.contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Turns whatever is raised within into a complaint about `name`."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, (OSError, ContractError)):
                log_error()
            self.say("%s: %s: %s" % (name, type(error).__name__, error))


def log_error() -> None:
    """The exception that is being handled, into the agent's log, if the disk takes it."""
    with contextlib.suppress(OSError):
        traceback.print_exc(file=sys.stderr)


def log(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
