"""Every way in which Thunder Compute was reported to misbehave, as switches. The sections are those
of the project's notes on Thunder (reference/thunder.md), which name the documents and live runs."""

from __future__ import annotations

from typing import Any

from clouds.faults import Fault

WHICH: dict[str, Any] = {"method": None, "path": None}  # path: an exact path
SPEC: dict[str, Any] = {"spec": None}  # "a6000_x1"
ONE: dict[str, Any] = {"instance": None, "mark": None}
# after_s: since it could be reached, or since the last thing that befell it
LIVING: dict[str, Any] = {**ONE, "after_s": 1.0}

REQUEST = (
    Fault(
        "forbidden-no-user-agent",
        "thunder §1.7.2",
        "the edge answers 403 with HTML as if no User-Agent were sent, before the token is seen",
        WHICH,
    ),
    Fault("html-502", "thunder §1.6", "the edge answers 502 with HTML; nothing is done",
          {**WHICH, "status": 502}),
    Fault("token-revoked", "thunder §1.7.2", "401 to a token that was good", times=None),
    Fault("token-told-invalid", "thunder §1.1", "auth/validate says 200 and valid=false",
          times=None),
    Fault(
        "rate-limited",
        "thunder §1.6",
        "429; with retry_after_s also a Retry-After header, which nobody has seen",
        {**WHICH, "retry_after_s": None},
    ),
    Fault("internal-500", "thunder §1.6", "500; nothing is done", WHICH),
    Fault("slow-reply", "thunder §1.7.10", "done at once, answered after for_s",
          {**WHICH, "for_s": 5.0}),
    Fault("answer-lost", "thunder §1.7.10", "done, and the answer breaks off", WHICH),
    Fault("done-then-502", "thunder §1.6", "done, and the edge answers 502 with HTML", WHICH),
)  # fmt: skip

CREATE = (
    Fault("create-500", "thunder §1.6", "500 to a create that did not happen", SPEC),
    Fault("create-500-but-created", "thunder §1.7.10", "500 to a create that did happen; it bills",
          SPEC),
    Fault(
        "create-hangs-but-created",
        "thunder §1.7.10",
        "created and billed at once, answered after for_s",
        {**SPEC, "for_s": 60.0},
    ),
    Fault("create-cut-short", "thunder §1.7.10", "the answer to a create that did happen breaks "
          "off", SPEC),
    Fault("create-answers-200", "thunder §1.2", "200 instead of 201", times=None),
    Fault("vcpu-rejected", "thunder §6.5", "400: a vCPU count that the specs offer is refused",
          SPEC),
    Fault(
        "no-capacity",
        "thunder §1.6",
        "a create is refused, in words that do not say why; /v2/status says unavailable, or "
        "(told=false) still available",
        {**SPEC, "told": True},
        times=None,
    ),
    Fault(
        "payment-required",
        "thunder §1.6",
        "a create is refused with this status for want of a card",
        {**SPEC, "status": 400},
        times=None,
    ),
    Fault(
        "quota-exceeded",
        "thunder §3 unpublished quotas",
        "a create beyond this many instances is refused",
        {"most": 1},
        times=None,
    ),
    Fault("mode-refused", "thunder §0.2", "a create that holds `mode` is refused", times=None),
    Fault("key-missing-in-reply", "thunder §1.2", "no `key` although no public_key was sent: it is "
          "lost"),
    Fault("key-in-every-reply", "thunder §7 unsettled", "a `key` although a public_key was sent",
          times=None),
    Fault("uuid-is-long", "thunder §1.4", "a new instance's uuid is an RFC 4122 one", times=None),
    Fault("disk-grows", "thunder §1.3", "a disk too small for its snapshot is silently grown",
          times=None),
    Fault(
        "preload-noise",
        "thunder §3.1",
        "every command on the box first says that a preloaded object was ignored, on stderr",
        ONE,
        times=None,
    ),
)  # fmt: skip

CATALOGUE = (
    Fault("price-changes", "thunder §4", "from now on a spec costs factor times as much",
          {**SPEC, "factor": 2.0}, times=None),
    Fault("price-missing", "thunder §4", "a spec has no price in the list", SPEC, times=None),
    Fault("status-map-missing", "thunder §1.2", "/v2/status is {}: fail open", times=None),
)  # fmt: skip

BOOT = (
    Fault("slow-boot", "thunder §1.7.5", "RUNNING this much later", {**ONE, "more_s": 3.0}),
    Fault("stuck-starting", "thunder §1.7.5", "STARTING and never RUNNING; it bills", ONE),
    Fault(
        "boot-words",
        "thunder §1.5",
        "the boot passes through these words, each for as long",
        {**ONE, "words": "PENDING,QUEUED,STAGING,PROVISIONING,CREATING,STARTING"},
        times=None,
    ),
    Fault("status-unknown", "thunder §1.7.5", "UNKNOWN for the first for_s of a boot",
          {**ONE, "for_s": 1.0}, times=None),
    Fault("no-address", "thunder §1.5", "RUNNING, and the ip stays null; it bills", ONE),
    Fault("running-but-port-closed", "thunder §1.7.6", "RUNNING, and the port refuses for a while",
          {**ONE, "for_s": 2.0}),
    Fault(
        "auth-refused",
        "thunder §1.7.6",
        "sshd lets nobody in for a while: the key is on its way",
        {**ONE, "for_s": 2.0},
    ),
)  # fmt: skip

LIFE = (
    Fault(
        "address-changes",
        "thunder §1.7.7",
        "MIGRATING for for_s, then another port; processes live on, unless restarts; with "
        "new_host_key they do not, and another host key answers; told=false: a list without "
        "?update_ips=true goes on telling the old port (§1.2)",
        {**LIVING, "for_s": 0.5, "restarts": False, "new_host_key": False, "told": True},
    ),
    Fault(
        "container-restarts",
        "thunder §1.7.8",
        "lastRestart is set, processes and tmux are gone, the disk is kept, the port is closed for "
        "down_s; times=n repeats it every after_s",
        {**LIVING, "down_s": 0.0, "reason": "OOMKilled"},
    ),
    Fault(
        "container-restarts-keys-lost",
        "thunder §1.7.8",
        "as container-restarts, and nobody gets in until add_key",
        {**LIVING, "down_s": 0.0, "reason": "OOMKilled"},
    ),
    Fault("host-dies", "thunder §6.2", "its processes end and the port refuses, or (silent) "
          "accepts and says nothing; the status stays RUNNING and it bills",
          {**LIVING, "silent": False}),
    Fault("host-key-changes", "thunder §6.3", "another host key answers at its address", LIVING),
    Fault("ssh-drops", "thunder §3", "its open connections end; everything else lives", LIVING),
    Fault("vanishes", "thunder §1.7.9", "it is gone for good, box and bill", LIVING),
    Fault(
        "stopped",
        "thunder §1.5",
        "STOPPING for for_s, then STOPPED, which has no way back; with bills it goes on billing",
        {**LIVING, "for_s": 0.0, "bills": False},
    ),
    Fault("status-unknown-in-passing", "thunder §1.5", "UNKNOWN for for_s in mid-life; it runs on",
          {**LIVING, "for_s": 1.0}),
    Fault("instance-blinks", "thunder §1.5", "a living instance is in no list for for_s",
          {**LIVING, "for_s": 1.0}),
)  # fmt: skip

LIST = (
    Fault("list-empty-after-create", "thunder §1.7.4", "a new instance is not listed for for_s",
          {**ONE, "for_s": 1.0}, times=None),
    Fault("list-empty-once", "thunder §1.7.4", "one list is {} when an instance has run for "
          "after_s", {"after_s": 1.0}),
    Fault("list-cut-short", "thunder §1.6", "a list breaks off"),
    Fault("index-moves", "thunder §1.7.1", "indices are given out anew before every list",
          times=None),
    Fault(
        "index-moves-before-use",
        "thunder §1.4",
        "indices are given out anew between the list and a delete, modify, add_key or ports: an "
        "index hits another instance, or none",
    ),
    Fault("uuid-refused", "thunder §1.4 unsettled", "{id} takes the index alone: 404 to a uuid",
          times=None),
    Fault(
        "item-types",
        "thunder §1.4, §1.5",
        'an item in its other spelling: running, cpuCores and numGpus as numbers, memory as '
        '"48 GB", "" instead of null while there is no ip',
        times=None,
    ),
    Fault("item-sparse", "thunder §1.4", "mode, httpPorts, k8s, promoted and times are missing",
          times=None),
)  # fmt: skip

CHANGE = (
    Fault(
        "list-stale-after-modify",
        "thunder §1.7.4",
        "for for_s after a modify the list shows RUNNING with the values from before",
        {**ONE, "for_s": 1.0},
        times=None,
    ),
    Fault(
        "modify-refused",
        "thunder §1.6",
        "400 with this slug (or unsupported_instance_version): snapshot and create anew",
        {**ONE, "error": "temporarily_disabled"},
        times=None,
    ),
    Fault("add-key-slow", "thunder §3", "a key that add_key took lets in after for_s",
          {**ONE, "for_s": 2.0}),
    Fault("delete-slow", "thunder §1.7.11", "DELETING for for_s before it is gone; it bills no "
          "more", {**ONE, "for_s": 2.0}, times=None),
    Fault("delete-500", "thunder §1.6", "500 to a delete that did not happen", ONE),
)  # fmt: skip

SNAPSHOT = (
    Fault("snapshot-fails", "thunder §1.7.12", "a snapshot ends with this status (TF: also ERROR)",
          {"status": "FAILED"}),
    Fault("snapshot-500-but-created", "thunder §1.6", "500 to a snapshot that was made"),
)  # fmt: skip

FAULTS = REQUEST + CREATE + CATALOGUE + BOOT + LIFE + LIST + CHANGE + SNAPSHOT
