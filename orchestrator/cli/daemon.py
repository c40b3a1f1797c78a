"""`gpujob daemon`: the scheduler loop in this process."""

from __future__ import annotations

import logging
import os

import click

from orchestrator.cli.home import settings
from orchestrator.daemon import serve, stop_on_signals
from orchestrator.daemon_lock import hold_lock
from orchestrator.errors import GpujobError
from orchestrator.version import VERSION
from orchestrator.wiring.worlds import make_world


@click.command()
@click.option("--until-idle", is_flag=True, help="End when no run is live.")
def command(until_idle: bool) -> None:
    """Run the daemon in the foreground.

    It is started by itself when a verb needs it; one a state folder.
    """
    config = settings()
    with hold_lock(config.state, VERSION) as lock:
        if lock is None:
            if until_idle:
                return
            raise GpujobError("a daemon runs already", hint="`gpujob ps` shows what it does")
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        for loud in ("paramiko", "httpx"):
            logging.getLogger(loud).setLevel(logging.WARNING)
        serve(make_world(config), lock, until_idle=until_idle, stop=stop_on_signals())
    # Tasks that still run act for a lease that was let go. They end with the process, at once:
    # whatever they had begun, the next daemon finds as after a crash.
    logging.shutdown()
    os._exit(0)
