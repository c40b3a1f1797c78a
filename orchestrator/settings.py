"""What the user configured for this machine. Read once, handed to wiring; nothing else reads the
environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.config import read_config
from orchestrator.core.actions import Deadlines


@dataclass(frozen=True)
class Vendor:
    """How a provider that is rented over the internet is found: the environment's name for its
    key and for another address of its API, and the address."""

    key_variable: str
    url_variable: str
    url: str


VENDORS: Mapping[str, Vendor] = {
    "runpod": Vendor("RUNPOD_API_KEY", "RUNPOD_API_URL", "https://api.runpod.io"),
    "thunder": Vendor("TNR_API_TOKEN", "TNR_API_URL", "https://api.thundercompute.com:8443"),
}


# Each key pair for S3, and the names (key id, secret, token) under which the environment may have
# it; the first whole pair counts. `s3` opens `checkpoints.also`, the others a provider's volumes.
STORES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "s3": (
        ("GPUJOB_S3_KEY_ID", "GPUJOB_S3_SECRET", "GPUJOB_S3_TOKEN"),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ),
    "runpod-s3": (("RUNPOD_S3_KEY_ID", "RUNPOD_S3_SECRET", ""),),
}


@dataclass(frozen=True)
class Pair:
    """A key pair for S3 and where it was found."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(repr=False)
    source: str


@dataclass(frozen=True)
class Pace:
    """What the user knows better than the adapter, None being the adapter's own: how often a
    provider is listed, how late its list is, how long each phase of a boot and one request may
    take, in seconds, how much the account may ask, and whom ssh logs in as."""

    poll_s: float | None = None
    idle_poll_s: float | None = None
    listing_lag_s: float | None = None
    absent_s: float | None = None
    assign_s: float | None = None
    start_s: float | None = None
    endpoint_s: float | None = None
    timeout_s: float | None = None
    requests_per_minute: int | None = None
    user: str | None = None


@dataclass(frozen=True)
class Settings:
    """`state` holds the ledger and the runs, `config` what the user wrote; `private_home` puts
    each local box's home folder on a tmpfs that only its own mount namespace sees; `usd_per_hour`
    is what a local box pretends to cost. `keys` and `urls` are the environment's, by provider.
    `s3_endpoint_url` is empty for Amazon's; `pairs` are the environment's, by store, and
    `volume_urls` other addresses at which a provider's volumes answer S3."""

    state: Path
    config: Path
    private_home: bool = False
    usd_per_hour: float = 0.0
    paces: Mapping[str, Pace] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    urls: Mapping[str, str] = field(default_factory=dict)
    s3_endpoint_url: str = ""
    s3_region: str = ""
    pairs: Mapping[str, Pair] = field(default_factory=dict, repr=False)
    volume_urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"


_SECONDS = {
    **{each.name: "seconds" for each in fields(Pace) if each.name.endswith("_s")},
    "listing_lag_s": "pause",
    "absent_s": "pause",
    "requests_per_minute": "count",
}
# Table → key → what its value has to be.
TABLES: Mapping[str, Mapping[str, str]] = {
    "local": {"private_home": "switch", "usd_per_hour": "amount"},
    "runpod": _SECONDS,
    "thunder": {**_SECONDS, "user": "name"},
    "s3": {"endpoint_url": "address", "region": "place"},
    "deadlines": {each.name: "seconds" for each in fields(Deadlines)},
}


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """`GPUJOB_HOME`, else the XDG folders. Raises BadJobFile for a config file that is wrong."""
    home = environ.get("GPUJOB_HOME")
    user = Path(environ.get("HOME") or "/")
    state = Path(home) if home else _xdg(environ, "XDG_STATE_HOME", user / ".local/state")
    config = Path(home) if home else _xdg(environ, "XDG_CONFIG_HOME", user / ".config")
    tables = read_config(config / "config.toml", TABLES)
    local: Mapping[str, Any] = tables["local"]
    return Settings(
        state=state.absolute(),
        config=config.absolute(),
        private_home=local.get("private_home", False),
        usd_per_hour=local.get("usd_per_hour", 0.0),
        paces={name: Pace(**tables[name]) for name in VENDORS},
        deadlines=Deadlines(**tables["deadlines"]),
        keys=_set(environ, {name: each.key_variable for name, each in VENDORS.items()}),
        urls=_set(environ, {name: each.url_variable for name, each in VENDORS.items()}),
        s3_endpoint_url=tables["s3"].get("endpoint_url", ""),
        s3_region=tables["s3"].get("region", ""),
        pairs=_pairs(environ),
        volume_urls=_set(environ, {"runpod": "RUNPOD_S3_URL"}),
    )


def _pairs(environ: Mapping[str, str]) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for store, choices in STORES.items():
        for names in choices:
            key_id, secret, token = (environ.get(name, "").strip() for name in names)
            if key_id and secret and store not in found:
                found[store] = Pair(key_id, secret, token, names[0])
    return found


def _set(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    found = {name: environ.get(variable, "").strip() for name, variable in variables.items()}
    return {name: value for name, value in found.items() if value}


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environ.get(name) or default) / "gpujob"
