"""What was measured as a page of Markdown: medians, and what they are beside rsync, scp and the
bare link."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from transfer_tools import TOOLS
from transfer_trees import TREES
from transfer_trial import Trial

LINKS = {"loopback": "loopback", "wan": "80 ms and 1 Gbit/s"}
BESIDE = ("rsync -a", "scp -r")
HEAD = (
    "tool",
    "MB/s, median",
    "min to max",
    "n",
    "x rsync",
    "x scp",
    "of the link",
    "CPU s/GiB here",
    "CPU s/GiB box",
    "memory here",
)


@dataclass
class Found:
    """All that was measured; `wan`: what the link alone carried, by tree."""

    trials: list[Trial] = field(default_factory=list)
    seal_s: dict[str, float] = field(default_factory=dict)
    latency_s: list[float] = field(default_factory=list)
    wan: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def page(found: Found) -> str:
    parts = [machine(found)]
    for link, tree in dict.fromkeys((trial.link, trial.what) for trial in found.trials):
        mine = [trial for trial in found.trials if (trial.link, trial.what) == (link, tree)]
        bare = found.wan[tree] if link == "wan" else {}
        parts += [
            f"### {TREES[tree].title}, {LINKS[link]}",
            _preface(mine, seal_s=found.seal_s[tree], bare=bare),
            table(mine, carried_mb_s=bare.get("steady_mb_s")),
        ]
    if found.latency_s:
        parts += ["### Complete on the box to verified here", _latency(found.latency_s)]
    return "\n\n".join([*parts, *found.notes])


def machine(found: Found) -> str:
    loads = [trial.load for trial in found.trials] or [os.getloadavg()[0]]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} cores for both sides, {memory_gb:.0f} GB; load average before a run "
        f"{min(loads):.1f} to {max(loads):.1f}, median {median(loads):.1f}."
    )


def table(trials: Sequence[Trial], *, carried_mb_s: float | None) -> str:
    """One tree over one link; `carried_mb_s` is what the link alone carries."""
    by_tool = {tool.name: [each for each in trials if each.tool == tool.name] for tool in TOOLS}
    rates = {tool: median(each.mb_s for each in done) for tool, done in by_tool.items() if done}
    rows = [
        _row(by_tool[tool], rates=rates, carried_mb_s=carried_mb_s)
        for tool in sorted(rates, key=lambda tool: -rates[tool])
    ]
    return markdown(HEAD, rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(
    trials: Sequence[Trial], *, rates: dict[str, float], carried_mb_s: float | None
) -> list[str]:
    tool, mb_s = trials[0].tool, [trial.mb_s for trial in trials]
    rate = rates[tool]
    return [
        tool,
        f"{rate:.1f}",
        f"{min(mb_s):.1f} to {max(mb_s):.1f}",
        str(len(trials)),
        *(f"{rate / rates[other]:.2f}" if other in rates else "" for other in BESIDE),
        f"{rate / carried_mb_s:.2f}" if carried_mb_s else "",
        f"{median(trial.per_gib(trial.client_cpu_s) for trial in trials):.2f}",
        f"{median(trial.per_gib(trial.server_cpu_s) for trial in trials):.2f}",
        f"{max(trial.rss_bytes for trial in trials) / 1e6:.0f} MB",
    ]


def _preface(trials: Sequence[Trial], *, seal_s: float, bare: dict[str, Any]) -> str:
    size = f"{trials[0].size_bytes / 1e6:,.1f} MB; sealing it took {seal_s:.2f} s, before these."
    if not bare:
        return size
    return (
        f"{size} The link alone, bare TCP: {bare['steady_mb_s']:.1f} MB/s, "
        f"{bare['steady_mb_s'] / bare['ceiling_mb_s']:.2f} of its rate; the same bytes from the "
        f"first connect on, slow start included: {bare['same_bytes_mb_s']:.1f} MB/s. Its queue "
        f"dropped {bare['counters']['down']['dropped']} packets in all."
    )


def _latency(latency_s: Sequence[float]) -> str:
    times = ", ".join(f"{each:.2f}" for each in latency_s)
    return f"Median {median(latency_s):.2f} s of {len(latency_s)} saves ({times})."
