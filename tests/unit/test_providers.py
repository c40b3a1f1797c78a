"""A provider that nobody names is never made, and one whose API moved is made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.clock import ManualClock

from orchestrator.adapters.local import LocalProvider
from orchestrator.ports import Provider
from orchestrator.providers import Providers

CODE = """
import sys
from pathlib import Path
from orchestrator.core.offer import Need
from orchestrator.settings import load_settings
from orchestrator.wiring.clouds import make_providers
from orchestrator.wiring.ledger import make_clock
providers = make_providers(load_settings(), make_clock())
assert list(providers) == ["local", "runpod", "thunder"]
assert providers["local"].offers(Need((("cpu", 1),), 1))
print([name for name in ("httpx", "orchestrator.adapters.http", "keyring") if name in sys.modules])
"""


def test_what_no_job_names_is_not_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "GPUJOB_HOME": str(tmp_path), "RUNPOD_API_KEY": "x"},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_provider_is_made_once_until_its_address_changes(tmp_path: Path) -> None:
    address = {"local": "here"}

    def make() -> Provider:
        return LocalProvider(tmp_path, clock=ManualClock())

    providers = Providers({"local": make}, address.__getitem__)
    first = providers["local"]
    assert providers["local"] is first
    address["local"] = "there"
    assert providers["local"] is not first
