"""What planning, the daemon and a rehearsal work with, put together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.threads import ThreadTasks
from orchestrator.core.run import Instance
from orchestrator.ports import Trees
from orchestrator.settings import Settings
from orchestrator.wiring.clouds import make_credentials, make_providers
from orchestrator.wiring.homes import make_mirror, make_store
from orchestrator.wiring.ledger import make_clock, open_ledger

if TYPE_CHECKING:
    from orchestrator.adapters.ssh import SshBoxes
    from orchestrator.flows.phase_plan import Shop
    from orchestrator.flows.rehearsal.bench import Bench
    from orchestrator.flows.step import World


def make_shop(settings: Settings, *, offline: bool = False) -> Shop:
    """What `launch` and, `offline`, `plan` plan with."""
    from orchestrator.adapters.git import checkout
    from orchestrator.adapters.stamp import Stamp, check_stamp, set_stamp
    from orchestrator.flows.phase_plan import Shop

    def claim(folder: Path, run: str) -> None:
        set_stamp(folder, Stamp(run, open_ledger(settings).id))

    providers = make_providers(settings, make_clock(), offline=offline)
    return Shop(
        make_trees(settings),
        providers,
        check_stamp,
        claim,
        s3_endpoint_url=settings.s3_endpoint_url,
        s3_region=settings.s3_region,
        free_bytes=_free_bytes,
        checkout=checkout,
    )


def make_world(settings: Settings) -> World:
    """What the daemon works through."""
    from orchestrator.adapters.zipapp import build_agent, library
    from orchestrator.flows.fleet import Fleet
    from orchestrator.flows.step import World

    clock = make_clock()
    ledger = open_ledger(settings)
    tasks = ThreadTasks(clock)
    credentials = make_credentials(settings, kept_first=True)
    return World(
        ledger=ledger,
        fleet=Fleet(make_providers(settings, clock, credentials), tasks, clock),
        boxes=make_boxes(settings),
        tasks=tasks,
        clock=clock,
        mirror=cache(lambda run, folder: make_mirror(folder, run, ledger)),
        agent=cache(build_agent),
        library=cache(library),
        state=settings.state,
        store=partial(make_store, settings),
        deadlines=settings.deadlines,
    )


def rehearsal_folder(settings: Settings, name: str, *, keep: bool) -> AbstractContextManager[Path]:
    """A place for one rehearsal, and nothing of it afterwards."""
    from orchestrator.adapters.rehearsals import rehearsal_folder as folder

    return folder(settings.state / "rehearsals", name, make_clock(), keep=keep)


def make_bench(
    settings: Settings, folder: Path, environ: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[Bench, World]:
    """What `rehearse` works with: a state folder, a ledger and boxes of its own below `folder`."""
    from orchestrator.adapters import props
    from orchestrator.flows.launch import make_plan
    from orchestrator.flows.rehearsal.bench import Bench
    from orchestrator.flows.rehearsal.props import Makers

    own = replace(settings, state=folder / "state", usd_per_hour=0.0, private_home=False)
    own.state.mkdir(parents=True, mode=0o700)
    real = make_shop(settings, offline=True)
    world = make_world(own)
    bench = Bench(
        folder=folder,
        state=own.state,
        shop=make_shop(own),
        ledger=world.ledger,
        provider=world.fleet.providers["local"],
        clock=world.clock,
        turn=lambda run: 0,
        plan=lambda job: make_plan(job, real),
        makers=Makers(props.shrink_parquet, props.make_model),
        standin=Path(__file__).parents[2] / "remote" / "standin",
        python=sys.executable,
        importable=props.is_importable,
        environ=environ,
        tell=tell,
    )
    return bench, world


def attach_command(settings: Settings, run: str, instance: Instance, *, keys: bool) -> list[str]:
    """The ssh command line that shows the trainer's tmux session on the box; without `keys` it
    is for looking, and a Ctrl-C there ends nothing."""
    from orchestrator.core.commands import agent_root
    from orchestrator.flows.box import endpoint_of

    ssh = make_boxes(settings).attach_command(endpoint_of(instance), run)
    return [*ssh, f"cd {agent_root(run)} && exec tmux -S tmux.sock attach{'' if keys else ' -r'}"]


def make_boxes(settings: Settings) -> SshBoxes:
    from orchestrator.adapters.ssh import SshBoxes

    return SshBoxes(settings.state)


def make_trees(settings: Settings) -> Trees:
    from orchestrator.adapters.tree import LocalTrees

    return LocalTrees(settings.state / "hashes.json")


def _free_bytes(folder: Path) -> int | None:
    """What may be stored there, or None when the disk does not say."""
    from orchestrator.adapters.disk import Disk, nearest_folder

    try:
        return Disk().space(nearest_folder(folder)).usable_bytes
    except OSError:
        return None
