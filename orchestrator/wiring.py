"""Settings to adapters, in one visible place. An adapter loads when something needs it, so that
`ps` and `--help` pay for none of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.adapters.threads import ThreadTasks
from orchestrator.core.actions import Deadlines
from orchestrator.core.run import Instance
from orchestrator.holder import Holder
from orchestrator.ports import Clock, Ledger, Provider, Trees
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.adapters.mirror import FolderMirror, Held
    from orchestrator.adapters.ssh import SshBoxes
    from orchestrator.flows.launch import Shop
    from orchestrator.flows.step import World


def make_clock() -> SystemClock:
    return SystemClock()


def open_ledger(settings: Settings) -> SqliteLedger:
    return SqliteLedger(settings.ledger, make_clock(), Holder.current())


def make_providers(settings: Settings, clock: Clock) -> dict[str, Provider]:
    from orchestrator.adapters.local import LocalProvider

    local = LocalProvider(
        settings.state / "local",
        clock=clock,
        private_home=settings.private_home,
        usd_per_hour=settings.usd_per_hour,
    )
    return {"local": local}


def make_trees(settings: Settings) -> Trees:
    from orchestrator.adapters.tree import LocalTrees

    return LocalTrees(settings.state / "hashes.json")


def make_mirror(folder: Path, run: str, ledger: Ledger) -> FolderMirror:
    from orchestrator.adapters.mirror import FolderMirror

    return FolderMirror(folder, run, ledger.id)


def make_boxes(settings: Settings) -> SshBoxes:
    from orchestrator.adapters.ssh import SshBoxes

    return SshBoxes(settings.state)


def make_shop(settings: Settings) -> Shop:
    """What `launch` plans with."""
    from orchestrator.adapters.stamp import Stamp, check_stamp, set_stamp
    from orchestrator.flows.launch import Shop

    def claim(folder: Path, run: str) -> None:
        set_stamp(folder, Stamp(run, open_ledger(settings).id))

    providers = make_providers(settings, make_clock())
    return Shop(make_trees(settings), providers, check_stamp, claim)


def make_world(settings: Settings) -> World:
    """What the daemon works through."""
    from orchestrator.adapters.zipapp import build_agent, library
    from orchestrator.flows.fleet import Fleet
    from orchestrator.flows.step import World

    clock = make_clock()
    ledger = SqliteLedger(settings.ledger, clock, Holder.current())
    tasks = ThreadTasks(clock)
    return World(
        ledger=ledger,
        fleet=Fleet(make_providers(settings, clock), tasks, clock),
        boxes=make_boxes(settings),
        tasks=tasks,
        clock=clock,
        mirror=cache(lambda run, folder: make_mirror(folder, run, ledger)),
        agent=cache(build_agent),
        library=cache(library),
        state=settings.state,
        deadlines=Deadlines(),
    )


def find_published(folder: Path, digest: str) -> Held | None:
    """The published checkpoint with this digest in a mirror folder; its bytes are not read."""
    from orchestrator.adapters.mirror import held

    return next((each for each in held(folder) if each.manifest.digest == digest), None)


def verify_published(checkpoint: Held) -> list[str]:
    from orchestrator.adapters.mirror import verify

    return verify(checkpoint)


def copy_published(checkpoint: Held, dest: Path) -> bool:
    from orchestrator.adapters.mirror import copy_out

    return copy_out(checkpoint, dest)


def attach_command(settings: Settings, run: str, instance: Instance, *, keys: bool) -> list[str]:
    """The ssh command line that shows the trainer's tmux session on the box; without `keys` it
    is for looking, and a Ctrl-C there ends nothing."""
    from orchestrator.core.commands import agent_root
    from orchestrator.flows.box import endpoint_of

    ssh = make_boxes(settings).attach_command(endpoint_of(instance), run)
    return [*ssh, f"cd {agent_root(run)} && exec tmux -S tmux.sock attach{'' if keys else ' -r'}"]
