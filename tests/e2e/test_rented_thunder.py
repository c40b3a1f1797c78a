"""Every fault of Thunder Compute, from launch to teardown: nothing left, nothing twice, all of it
here, and the ledger's cost the bill's."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.rented import Row, Story, cases

pytestmark = [pytest.mark.e2e, pytest.mark.rented]

LIST = {"method": "GET", "path": "/v1/instances/list"}
LOST = ("instance.lost", "instance.released", "instance.gone")
REFUSED = ("instance.refused",)
KEYS_LOST = ("container-restarts-keys-lost", {"after_s": 3.0})
ROWS = (
    Row("forbidden-no-user-agent", {"skip": 12}),
    Row("html-502", {"skip": 12}),
    Row("token-revoked", state="FAILED", exit_code=1, boxes=0, says="did not accept the key"),
    Row("rate-limited", {"skip": 12}),
    Row("internal-500", {**LIST, "times": 3}),
    Row("slow-reply", {**LIST, "skip": 10}),
    Row("answer-lost", {**LIST, "skip": 10, "times": 3}),
    Row("done-then-502", {"method": "POST", "times": 2}),  # the create, and then the delete
    Row("create-500", tells=REFUSED),
    Row("create-500-but-created"),
    Row("create-hangs-but-created"),
    Row("create-cut-short"),
    Row("create-answers-200"),
    Row("vcpu-rejected", tells=REFUSED),
    Row("no-capacity", {"spec": "a6000_x1", "times": "always"}),
    Row("payment-required", state="FAILED", exit_code=1, boxes=0, says="Payment required"),
    Row("quota-exceeded", {"most": 0}, state="FAILED", exit_code=1, boxes=0, tells=REFUSED),
    Row("mode-refused"),
    Row("key-missing-in-reply"),
    Row("key-in-every-reply"),
    Row("uuid-is-long"),
    Row("preload-noise"),
    Row("price-changes", {"factor": 3.0}, midway=True),
    Row("price-missing", state="", exit_code=1, launches=False, says="price list"),
    Row("status-map-missing"),
    Row("slow-boot", {"more_s": 3.0}),
    Row("stuck-starting", boxes=2, tells=LOST),
    Row("boot-words"),
    Row("status-unknown", {"for_s": 1.5}),
    Row("no-address", boxes=2, tells=LOST),
    Row("running-but-port-closed", {"for_s": 2.0}),
    Row("auth-refused", {"for_s": 2.0}),
    Row("address-changes", midway=True, tells=("instance.moved",)),
    Row("container-restarts", midway=True, tells=("instance.restarted",)),
    Row("container-restarts-keys-lost", midway=True, tells=("instance.restarted",)),
    Row("add-key-slow", tells=("instance.restarted",), also=(KEYS_LOST,)),
    Row("host-dies", midway=True, boxes=2, tells=LOST),
    Row("host-key-changes", midway=True, boxes=2, tells=LOST),
    Row("ssh-drops", midway=True),
    Row("vanishes", midway=True, boxes=2, tells=("instance.lost", "instance.gone")),
    Row("stopped", midway=True, boxes=2, tells=LOST),
    Row("status-unknown-in-passing", {"for_s": 1.5}, midway=True),
    Row("instance-blinks", {"for_s": 1.0}, midway=True),
    Row("list-empty-after-create", {"for_s": 1.0}),
    Row("list-empty-once", midway=True),
    Row("list-cut-short", {"skip": 5, "times": 3}),
    Row("index-moves"),
    Row("index-moves-before-use"),
    Row("uuid-refused"),
    Row("item-types"),
    Row("item-sparse"),
    Row("delete-slow", {"for_s": 2.0}),
    Row("delete-500"),
    # No run asks for a snapshot or a change, and `doctor` alone about the key: nothing comes of it.
    Row("token-told-invalid"),
    Row("disk-grows"),
    Row("list-stale-after-modify"),
    Row("modify-refused"),
    Row("snapshot-fails"),
    Row("snapshot-500-but-created"),
)


@pytest.mark.parametrize("row", cases(ROWS, of="thunder"))
def test_fault(tmp_path: Path, row: Row) -> None:
    story = Story(tmp_path, "thunder")
    try:
        story.tell(row)
    finally:
        story.close()
