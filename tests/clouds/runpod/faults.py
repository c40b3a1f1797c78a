"""Every way in which RunPod was reported to misbehave, as switches. The sections are those of the
project's notes on RunPod, which name the documents and threads."""

from __future__ import annotations

from typing import Any

from clouds.faults import Fault

FULL = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
WRONG = "Something went wrong. Please try again later or contact support."
WHICH: dict[str, Any] = {"method": None, "path": None}  # path: an exact path
PLACE: dict[str, Any] = {"gpu": None, "region": None, "cloud": None}
POD: dict[str, Any] = {"instance": None, "mark": None}
LIVING: dict[str, Any] = {**POD, "after_s": 0.0}  # seconds since it became RUNNING

REQUEST = (
    Fault("html-502", "§9 HTML 502; §1.4", "the proxy answers 502 in HTML; nothing is done", WHICH),
    Fault("html-429", "§1.4 bodies can be HTML", "a 429 in HTML, without Retry-After", WHICH),
    Fault("forbidden-1010", "§9 403 error 1010; §1", "the firewall refuses any key", WHICH),
    Fault("internal-500", "§1.2 retry table", "a 500 problem; nothing is done", WHICH),
    Fault("unauthorized", "§1.4", "the key is refused, as a revoked one is", WHICH),
    Fault(
        "rate-limited",
        "§1.4, §9 429 with Retry-After",
        "another client of the account has used up the window (minute, hour or day)",
        {**WHICH, "window": "minute"},
    ),
    Fault(
        "slow-reply", "§9 hangs", "done at once, answers after delay_s", {**WHICH, "delay_s": 5.0}
    ),
    Fault("answer-lost", "§0D", "done, and the answer breaks off", WHICH),
    Fault("done-then-502", "§0D, §8.8", "done, and the proxy answers 502 in HTML", WHICH),
)

CREATE = (
    Fault("create-500", "§2 transient 500", "500, and nothing was created", PLACE),
    Fault("create-500-but-created", "§0D, §9 create-then-500", "created, bills, and a 500", PLACE),
    Fault(
        "create-hangs-but-created",
        "§9 create hangs",
        "created and billed at once; answers after hang_s",
        {**PLACE, "hang_s": 60.0},
    ),
    Fault("create-answer-lost", "§0D", "created, and the 201 breaks off in its body", PLACE),
    Fault(
        "no-capacity",
        "§9 capacity; §1.2",
        "400 with the capacity text, whatever the catalog says",
        {**PLACE, "detail": FULL},
    ),
    Fault("pool-forbidden", "§9 403; §1.2 retry table", "403 for this pool", PLACE),
    Fault("short-balance", "§9 402", "402 whatever the balance is", PLACE),
    Fault(
        "placed-elsewhere",
        "§1.2 dataCenterIds are preferred",
        "placed in this region instead of the one that was asked for",
        {"gpu": None, "region": "US-KS-2"},
    ),
    Fault(
        "price-differs",
        "§1.5, §10 what a create rents",
        "the pod costs factor times what the catalog says",
        {**PLACE, "factor": 2.0},
    ),
    Fault(
        "catalog-says-none",
        "§1.5 stock can disagree with create",
        "the catalog says NONE where a create would be placed",
        {"gpu": None},
        None,
    ),
    Fault(
        "invisible-after-create",
        "§9 invisible; §6.2",
        "for for_s after its create the pod is in no list and GET says 404; it bills",
        {**POD, "for_s": 5.0},
        None,
    ),
    Fault(
        "endpoint-recycled",
        "§5.1 RunPod recycles host:port",
        "the next pod gets the public port of the pod that ended last, with its own host key",
    ),
)

BOOT = (
    Fault("stuck-provisioning", "§9", "never leaves PROVISIONING, and bills", POD),
    Fault("stuck-starting", "§9", "never leaves STARTING, and bills", POD),
    Fault(
        "oci-loop",
        "§9 OCI error loop; §5.6",
        "loops in STARTING; the cause is only in the system log, every 10 s",
        POD,
    ),
    Fault("slow-boot", "§5.2 cold pull", "RUNNING only after boot_s", {**POD, "boot_s": 180.0}),
    Fault("no-endpoint", "§9 ssh.direct null; §5.1", "RUNNING, and ssh.direct stays null", POD),
    Fault(
        "endpoint-refuses",
        "§9; §8.3",
        "its public port refuses connections: from the start, or from after_s on",
        LIVING,
    ),
    Fault("key-not-installed", "§8.3", "sshd answers and lets no key in", POD),
    Fault(
        "no-host-key-in-log",
        "§5.1 fingerprints in the container log",
        "the container log lacks the host key's fingerprints",
        POD,
        None,
    ),
    Fault(
        "start-not-enough-gpus",
        "§9; §1.4, §5.6",
        'start answers 400 {"error": "not enough free GPUs on the host machine"}',
        POD,
    ),
    Fault("start-500-but-started", "§3 runpodctl#45", "start answers 500 and did start", POD),
    Fault(
        "gpu-missing",
        "§9 GPU missing after start; §5.6 zero GPUs",
        "the pod comes up with only count GPUs, after a start or (at=create) after its create",
        {**POD, "count": 0, "at": "start"},
    ),
    Fault("pod-key-403", "§6.6 unsettled", "the pod's own key may not even stop it", POD, None),
)

LIFE = (
    Fault(
        "host-vanishes",
        "§9; §5.3 host failure",
        "all processes die and the status stays RUNNING; the port is silent, or (silent=false) "
        "refuses",
        {**LIVING, "silent": True},
    ),
    Fault(
        "container-restarts",
        "§9; §5.2 runpodctl#149",
        "under RUNNING: processes gone, disk wiped, new host key; the same public port",
        {**LIVING, "wipe": True, "new_host_key": True},
    ),
    Fault(
        "port-changes-after-restart",
        "§9; §5.1 mappings change on reset",
        "the container restarts under RUNNING and is at another public port afterwards",
        {**LIVING, "wipe": True, "new_host_key": True},
    ),
    Fault(
        "host-key-changes",
        "§9; §5.1",
        "somebody else with another host key answers at its address; the log still tells its own",
        LIVING,
    ),
    Fault("ssh-drops", "§5.3 SSH drop", "its open connections end; everything else lives", LIVING),
    Fault("pod-error", "§9 ERROR; §5.6", "ERROR, processes gone, and it bills on", LIVING),
    Fault("maintenance-exit", "§5.6 maintenance", "EXITED by RunPod; bills no more", LIVING),
    Fault("deleted-from-console", "§9", "a person deletes the pod in the console", LIVING),
    Fault(
        "balance-zero",
        "§9; §5.3",
        "the money is gone: pods end, those with a network volume are EXITED",
        LIVING,
    ),
    Fault(
        "spot-outbid",
        "§9 legacy profile; §5.6",
        "SIGTERM, SIGKILL after grace_s, then EXITED with Outbid in the system log",
        {**LIVING, "grace_s": 5.0},
    ),
    Fault(
        "pod-blinks",
        "§6.2 a 404 is not proof of absence",
        "for for_s the living pod is in no list and GET says 404",
        {**LIVING, "for_s": 5.0},
    ),
)

ANSWER = (
    Fault(
        "delete-404-while-propagating",
        "§9; §6.2",
        "within for_s of its create DELETE answers 404 and the pod lives on",
        {**POD, "for_s": 5.0},
        None,
    ),
    Fault(
        "delete-lingers",
        "§6.3 poll until 404; §1.3 also accept TERMINATED",
        "after a 204 the pod is told for for_s more, with this status; it bills no more",
        {**POD, "for_s": 5.0, "status": "TERMINATED"},
        None,
    ),
    Fault(
        "delete-ignored",
        "§6.3, §10 whether a DELETE while PROVISIONING is honored",
        "DELETE answers 204 and nothing happens; it bills on",
        POD,
    ),
    Fault(
        "list-pages",
        "§9 several cursor pages; §1.1",
        "lists come in pages of page_size",
        {"page_size": 1},
        None,
    ),
    Fault("clock-skew", "§9", "every time told is off by skew_s", {"skew_s": 3600.0}, None),
    Fault(
        "env-in-clear",
        "§9; §6.7",
        "env as told also holds what RunPod injects, the pod's key too; without this switch it "
        "holds all that the create sent, in the clear",
        POD,
        None,
    ),
    Fault(
        "stale-runtime",
        "§3 stale runtime on an EXITED pod",
        "an EXITED pod is told with its last runtime and ssh.direct",
        POD,
        None,
    ),
)

TABLE = REQUEST + CREATE + BOOT + LIFE + ANSWER
