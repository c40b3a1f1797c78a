"""Every fault of RunPod, from launch to teardown: nothing left, nothing twice, all of it here, and
the ledger's cost the bill's."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.rented import Row, Story, cases

pytestmark = [pytest.mark.e2e, pytest.mark.rented]

LIST = {"method": "GET", "path": "/v2/pods"}
LOST = ("instance.lost", "instance.released", "instance.gone")
REFUSED = ("instance.refused",)
ROWS = (
    Row("html-502", {**LIST, "times": 3}),
    Row("html-429", LIST),
    Row("forbidden-1010", {**LIST, "skip": 10}),
    Row("internal-500", {**LIST, "times": 3}),
    Row("unauthorized", state="", exit_code=1, launches=False, says="did not accept the key"),
    Row("rate-limited", {**LIST, "skip": 20}),
    Row("slow-reply", {**LIST, "skip": 10}),
    Row("answer-lost", {**LIST, "skip": 10, "times": 3}),
    Row("done-then-502", {"method": "DELETE"}),
    Row("create-500", tells=REFUSED),
    Row("create-500-but-created"),
    Row("create-hangs-but-created"),
    Row("create-answer-lost"),
    Row("no-capacity", {"times": 2}, tells=REFUSED),
    Row("pool-forbidden", tells=REFUSED),
    Row("short-balance", state="FAILED", exit_code=1, boxes=0, tells=REFUSED, says="cannot pay"),
    Row("placed-elsewhere"),
    Row("price-differs", tells=("instance.priced",)),
    Row("catalog-says-none", state="", exit_code=3, launches=False, says="out of stock"),
    Row("invisible-after-create", {"for_s": 1.0}),
    Row("endpoint-recycled", boxes=2, also=(("deleted-from-console", {"after_s": 4.0}),)),
    Row("stuck-provisioning", boxes=2, tells=LOST),
    Row("stuck-starting", boxes=2, tells=LOST),
    Row("oci-loop", boxes=2, tells=LOST),
    Row("slow-boot", {"boot_s": 3.0}),
    Row("no-endpoint", boxes=2, tells=LOST),
    Row("endpoint-refuses", boxes=2, tells=LOST),
    Row("key-not-installed", boxes=2, tells=LOST),
    Row("no-host-key-in-log"),
    Row("start-not-enough-gpus"),
    Row("start-500-but-started"),
    Row("gpu-missing", {"at": "create"}, boxes=2, tells=LOST),
    Row("pod-key-403"),
    Row("host-vanishes", midway=True, boxes=2, tells=LOST),
    Row("container-restarts", midway=True, tells=("instance.wiped",)),
    Row("port-changes-after-restart", midway=True, tells=("instance.wiped",)),
    Row("host-key-changes", midway=True, boxes=2, tells=LOST),
    Row("ssh-drops", midway=True),
    Row("pod-error", midway=True, boxes=2, tells=LOST),
    Row("maintenance-exit", midway=True, boxes=2, tells=LOST),
    Row("deleted-from-console", midway=True, boxes=2, tells=("instance.lost", "instance.gone")),
    Row("balance-zero", midway=True, state="FAILED", exit_code=1, says="cannot pay"),
    Row("spot-outbid", {"grace_s": 1.0}, midway=True, boxes=2, tells=LOST),
    Row("pod-blinks", {"for_s": 1.0}, midway=True),
    Row("delete-404-while-propagating"),
    Row("delete-lingers", {"for_s": 2.0}),
    Row("delete-ignored"),
    Row("list-pages"),
    Row("clock-skew"),
    Row("env-in-clear"),
    Row("stale-runtime"),
)


@pytest.mark.parametrize("row", cases(ROWS, of="runpod"))
def test_fault(tmp_path: Path, row: Row) -> None:
    story = Story(tmp_path, "runpod")
    try:
        story.tell(row)
    finally:
        story.close()
