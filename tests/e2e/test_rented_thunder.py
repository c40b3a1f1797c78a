"""Every fault of Thunder Compute, from launch to teardown: nothing left, nothing twice, all of it
here, and the ledger's cost the bill's."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.rented import Row, Story, cases

pytestmark = [pytest.mark.e2e, pytest.mark.rented]

LOST = ("instance.lost", "instance.released", "instance.gone")
ROWS = (
    Row("index-moves"),
    Row("forbidden-no-user-agent", {"skip": 12}),
    Row("token-revoked", state="FAILED", exit_code=1, boxes=0, says="did not accept the key"),
    Row("vcpu-rejected", tells=("instance.refused",)),
    Row("list-empty-after-create", {"for_s": 1.0}),
    Row("list-empty-once", midway=True),
    Row("list-stale-after-modify"),
    Row("status-unknown", {"for_s": 1.5}),
    Row("slow-boot", {"more_s": 3.0}),
    Row("stuck-starting", boxes=2, tells=LOST),
    Row("no-address", boxes=2, tells=LOST),
    Row("running-but-port-closed", {"for_s": 2.0}),
    Row("auth-refused", {"for_s": 2.0}),
    Row("address-changes", midway=True, tells=("instance.moved",)),
    Row("container-restarts", midway=True, tells=("instance.restarted",)),
    Row("container-restarts-keys-lost", midway=True, tells=("instance.restarted",)),
    Row("vanishes", midway=True, boxes=2, tells=("instance.lost", "instance.gone")),
    Row("host-dies", midway=True, boxes=2, tells=LOST),
    Row("create-500-but-created"),
    Row("create-500", tells=("instance.refused",)),
    Row("create-hangs-but-created"),
    Row("create-cut-short"),
    Row("rate-limited", {"skip": 12}),
    Row("html-502", {"skip": 12}),
    Row("list-cut-short", {"skip": 5, "times": 3}),
    Row("delete-slow", {"for_s": 2.0}),
    Row("delete-500"),
    Row("snapshot-fails"),
    Row("key-missing-in-reply"),
    Row("no-capacity", {"spec": "a6000_x1", "times": "always"}),
    Row("payment-required", state="FAILED", exit_code=1, boxes=0, says="Payment required"),
    Row("stopped", midway=True, boxes=2, tells=LOST),
)


@pytest.mark.parametrize("row", cases(ROWS))
def test_fault(tmp_path: Path, row: Row) -> None:
    story = Story(tmp_path, "thunder")
    try:
        story.tell(row)
    finally:
        story.close()
