"""Misbehaviour on demand: a literal table of faults, and which of them are armed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """One switch. `source` says where it was seen; `params` are its parameters with their
    defaults, None standing for any; `times` is how often it acts, None for until disarmed."""

    name: str
    source: str
    what: str
    params: Params = field(default_factory=dict)
    times: int | None = 1


@dataclass
class Armed:
    """A fault that waits for its moment."""

    fault: Fault
    params: Params
    left: int | None
    skip: int = 0
    acted: int = 0

    def matches(self, facts: Params) -> bool:
        """Whether this is its moment: each of its parameters that is also a fact is equal to it,
        and `since_s` has reached its `after_s`."""
        if float(self.params.get("after_s") or 0) > float(facts.get("since_s", 0)):
            return False
        wanted = {name: self.params[name] for name in facts if name in self.params}
        return all(value is None or value == facts[name] for name, value in wanted.items())

    @property
    def told(self) -> Params:
        """The parameters and the fault's name: never empty, so that it may be asked like a bool."""
        return {**self.params, "fault": self.fault.name}

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.fault.name,
            **self.params,
            "times": self.left,
            "skip": self.skip,
            "acted": self.acted,
        }


class Faults:
    """All faults of one cloud. The emulator asks at named points: `take` where the fault acts
    once, `peek` where it lasts."""

    def __init__(self, table: Sequence[Fault]) -> None:
        self.table = {fault.name: fault for fault in table}
        self.armed: list[Armed] = []

    def arm(self, name: str, params: Params | None = None) -> Armed:
        """`times` and `skip` (moments to let pass first) may be among the parameters.
        Raises ValueError for an unknown fault or parameter."""
        fault = self.table.get(name)
        if fault is None:
            raise ValueError(f"no fault {name!r}; there are: {', '.join(sorted(self.table))}")
        given = dict(params or {})
        times, skip = given.pop("times", fault.times), int(given.pop("skip", 0))
        unknown = sorted(set(given) - set(fault.params))
        if unknown:
            raise ValueError(f"{name} has no {', '.join(unknown)}; it has {list(fault.params)}")
        armed = Armed(fault, {**fault.params, **given}, _times(times), skip)
        self.armed.append(armed)
        return armed

    def disarm(self, name: str | None = None) -> int:
        """How many were disarmed; all of them without a name."""
        before = len(self.armed)
        self.armed = [each for each in self.armed if name and each.fault.name != name]
        return before - len(self.armed)

    def take(self, name: str, *, once: set[int] | None = None, **facts: Any) -> Params | None:
        """The parameters, once for each of its times; None when it does not act now. `once`
        remembers what acted already, so that no fault strikes one instance twice."""
        armed = self._find(name, facts, once or set())
        if armed is None:
            return None
        if once is not None:
            once.add(id(armed))
        if armed.skip > 0:
            armed.skip -= 1
            return None
        armed.acted += 1
        if armed.left is not None:
            armed.left -= 1
        return armed.told

    def peek(self, name: str, **facts: Any) -> Params | None:
        """The parameters while it is armed, without counting."""
        armed = self._find(name, facts, set())
        return armed.told if armed else None

    def listing(self) -> dict[str, Any]:
        table = [
            {"name": each.name, "source": each.source, "what": each.what, "times": each.times,
             "params": dict(each.params)}
            for each in self.table.values()
        ]  # fmt: skip
        return {"faults": table, "armed": [each.to_json() for each in self.armed]}

    def _find(self, name: str, facts: Params, passed: set[int]) -> Armed | None:
        if name not in self.table:
            raise KeyError(name)
        for each in self.armed:
            if each.fault.name != name or each.left == 0 or id(each) in passed:
                continue
            if each.matches(facts):
                return each
        return None


def _times(value: Any) -> int | None:
    """None, 0 or a word like "always" stands for until disarmed."""
    if value is None or value == "always":
        return None
    return int(value) or None
