"""Where things are on this machine. Read once, handed to wiring; nothing else reads the
environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import BadJobFile


@dataclass(frozen=True)
class Settings:
    """`state` holds the ledger and the runs; `private_home` puts each local box's home folder on
    a tmpfs that only its own mount namespace sees; `usd_per_hour` is what a local box pretends
    to cost."""

    state: Path
    private_home: bool = False
    usd_per_hour: float = 0.0

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """`GPUJOB_HOME`, else the XDG folders. Raises BadJobFile for a config file that is wrong."""
    home = environ.get("GPUJOB_HOME")
    user = Path(environ.get("HOME") or "/")
    state = Path(home) if home else _xdg(environ, "XDG_STATE_HOME", user / ".local/state")
    config = Path(home) if home else _xdg(environ, "XDG_CONFIG_HOME", user / ".config")
    local = _read(config / "config.toml").get("local", {})
    try:
        return Settings(
            state=state.absolute(),
            private_home=bool(local.get("private_home", False)),
            usd_per_hour=float(local.get("usd_per_hour", 0.0)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise BadJobFile(f"{config / 'config.toml'}: [local]: {error}") from error


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environ.get(name) or default) / "gpujob"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadJobFile(f"{path} cannot be read: {error}", hint="correct or remove it") from error
