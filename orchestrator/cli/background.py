"""Makes sure that a daemon of this version runs: the CLI itself never acts on a cloud or a box."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.daemon_lock import Words, read_words
from orchestrator.errors import Missing
from orchestrator.settings import Settings
from orchestrator.version import VERSION
from orchestrator.wiring.ledger import make_clock

START_S = 20.0
LOOK_S = 0.05
# The daemon outlives the shell that started it and must not carry that shell's secrets.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG(UAGE)?|LC_\w+|TZ|TMPDIR|TERM|VIRTUAL_ENV"
    r"|GPUJOB_HOME|XDG_(STATE|CONFIG)_HOME|XDG_RUNTIME_DIR|SSL_CERT_(FILE|DIR)"
    r"|RUNPOD_API_URL|TNR_API_URL"
)


def ensure_daemon(settings: Settings) -> None:
    """Return when a daemon of this version runs that will see what is in the ledger now; replace
    an older one.

    A daemon takes its words back before it looks at the ledger for the last time: whoever reads
    them after a request was written is heard. Raises Missing when none comes up."""
    clock = make_clock()
    deadline = clock.monotonic() + START_S
    process: subprocess.Popen[bytes] | None = None
    while clock.monotonic() < deadline:
        words = _words(settings.state)
        if words and words.version == VERSION:
            return
        if words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(words.holder.pid, signal.SIGTERM)
        elif process is None or process.poll() is not None:
            process = _spawn(settings)
        clock.wait(LOOK_S)
    raise Missing(
        f"the daemon did not start: {_last_words(settings.state / 'daemon.log')}",
        hint="`gpujob daemon` runs it in the foreground and shows why",
    )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def _words(state: Path) -> Words | None:
    try:
        return read_words(state)
    except OSError as error:
        raise Missing(
            f"the state folder {state} cannot be used: {error}",
            hint="make it writable, or set GPUJOB_HOME to another folder",
        ) from error


def _spawn(settings: Settings) -> subprocess.Popen[bytes]:
    log = os.open(settings.state / "daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "daemon", "--until-idle"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,
        )
    finally:
        os.close(log)


def _last_words(log: Path) -> str:
    try:
        return log.read_text(errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return "it said nothing"
