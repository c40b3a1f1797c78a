"""The references list how both vendors fail: each of their faults has a switch in the emulator, and
each switch a row in the tables that run it through a whole launch and teardown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from clouds.runpod.faults import TABLE as RUNPOD
from clouds.thunder.faults import FAULTS as THUNDER

ROOT = Path(__file__).parents[3]

# What runpod.md §9 lists as fault knobs, in its order: a word of each, and the switch.
KNOBS: Mapping[str, str] = {
    "create-then-500": "create-500-but-created",
    "create hangs past the client timeout": "create-hangs-but-created",
    "pod invisible in list": "invisible-after-create",
    "DELETE 404 while still propagating": "delete-404-while-propagating",
    "capacity for type X": "no-capacity",
    "HTML 502": "html-502",
    "403 error 1010": "forbidden-1010",
    "stuck in PROVISIONING": "stuck-provisioning",
    "OCI error loop": "oci-loop",
    "`ssh.direct` null forever": "no-endpoint",
    "direct endpoint refuses": "endpoint-refuses",
    "host key changes": "host-key-changes",
    "port changes after restart": "port-changes-after-restart",
    "GPU missing after start": "gpu-missing",
    "start → 400": "start-not-enough-gpus",
    "container restarts under a RUNNING status": "container-restarts",
    "host vanishes": "host-vanishes",
    "balance hits 0": "balance-zero",
    "ERROR": "pod-error",
    "clock skew": "clock-skew",
    "list split over several cursor pages": "list-pages",
    "pod deleted from the console": "deleted-from-console",
    "env returned in the clear": "env-in-clear",
    "spot outbid": "spot-outbid",
}
# What thunder.md §1.7 numbers 1 to 14, and the switches of each; what an emulator always does
# (map-shaped lists, 401, 404 on the second delete, `mode` ignored) needs none.
POINTS: Mapping[int, tuple[str, ...]] = {
    1: ("index-moves",),
    2: ("forbidden-no-user-agent", "token-revoked"),
    3: ("vcpu-rejected",),
    4: ("list-empty-after-create", "list-empty-once", "list-stale-after-modify"),
    5: ("status-unknown", "slow-boot", "stuck-starting"),
    6: ("running-but-port-closed", "auth-refused"),
    7: ("address-changes",),
    8: ("container-restarts", "container-restarts-keys-lost"),
    9: ("vanishes",),
    10: ("create-500-but-created", "rate-limited", "html-502", "create-hangs-but-created"),
    11: ("delete-slow",),
    12: ("snapshot-fails",),
    13: ("key-missing-in-reply",),
    14: (),
}


def reference(name: str) -> str:
    folder = Path(os.environ.get("GPUJOB_REFERENCE", ROOT.parent / "shared" / "reference"))
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{name} is not at hand; what it lists was read when the tables were written")
    return path.read_text()


def rows_of(name: str) -> set[str]:
    text = (ROOT / "tests" / "e2e" / f"test_rented_{name}.py").read_text()
    return set(re.findall(r'Row\(\s*"([a-z0-9-]+)"', text))


def test_every_knob_of_runpods_reference_has_a_switch() -> None:
    text = reference("runpod.md")
    knobs = text.split("**Fault knobs (each one is a test)**:")[1].split("\n")[0]
    listed = [each.strip() for each in knobs.rstrip(".").split(";")]
    assert len(listed) == len(KNOBS)
    for phrase, word in zip(listed, KNOBS, strict=True):
        assert word in phrase, f"{phrase!r} has no switch in KNOBS"
    assert set(KNOBS.values()) <= {each.name for each in RUNPOD}


def test_every_point_of_thunders_reference_has_its_switches() -> None:
    text = reference("thunder.md")
    section = text.split("### 1.7")[1].split("**Cross-check")[0]
    numbers = {int(each) for each in re.findall(r"(?:^|\s)(\d{1,2})\. ", section)}
    assert numbers == set(POINTS)
    switches = {name for names in POINTS.values() for name in names}
    assert switches <= {each.name for each in THUNDER}


@pytest.mark.parametrize(("name", "table"), [("runpod", RUNPOD), ("thunder", THUNDER)])
def test_every_switch_is_run_through_a_whole_run(name: str, table: tuple[object, ...]) -> None:
    switches = {each.name for each in table}  # type: ignore[attr-defined]
    assert rows_of(name) == switches
