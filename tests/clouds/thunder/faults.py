"""Every fault of Thunder Compute that its reference tells of, as a switch. Those of a living
instance act `after_s` it runs."""

from __future__ import annotations

from clouds.faults import Fault

FAULTS = (
    Fault(
        "index-moves", "thunder §1.4", "indices are given out anew before every list", times=None
    ),
    Fault("forbidden-no-user-agent", "thunder §1.1", "the edge answers 403 with HTML"),
    Fault("token-revoked", "thunder §1.6", "401 to a key that was good", times=None),
    Fault("vcpu-rejected", "thunder §6.5", "400: a vCPU count that the specs offer is refused"),
    Fault(
        "list-empty-after-create",
        "thunder §1.7.4",
        "a new instance is not listed for a while",
        {"for_s": 1.0},
        times=None,
    ),
    Fault("list-empty-once", "thunder §1.7.4", "one list in mid-life is {}", {"after_s": 1.0}),
    Fault(
        "list-stale-after-modify",
        "thunder §1.7.4",
        "the list shows the values from before a modify for a while",
        {"for_s": 1.0},
        times=None,
    ),
    Fault(
        "status-unknown",
        "thunder §1.7.5",
        "UNKNOWN is said early in the boot and in passing",
        {"for_s": 1.0},
        times=None,
    ),
    Fault("slow-boot", "thunder §1.7.5", "STARTING takes this much longer", {"more_s": 3.0}),
    Fault("stuck-starting", "thunder §1.7.5", "STARTING and never RUNNING"),
    Fault("no-address", "thunder §1.5", "RUNNING, and the ip stays null"),
    Fault(
        "running-but-port-closed",
        "thunder §1.7.6",
        "RUNNING, and the port refuses for a while",
        {"for_s": 2.0},
    ),
    Fault(
        "auth-refused",
        "thunder §1.7.6",
        "sshd lets nobody in for a while: the key is on its way",
        {"for_s": 2.0},
    ),
    Fault(
        "address-changes",
        "thunder §1.7.7",
        "MIGRATING, then another port, with the same processes",
        {"after_s": 1.0},
    ),
    Fault(
        "container-restarts",
        "thunder §1.7.8",
        "lastRestart is set, processes and tmux are gone, the disk is kept",
        {"after_s": 1.0},
    ),
    Fault(
        "container-restarts-keys-lost",
        "thunder §1.7.8",
        "as container-restarts, and nobody gets in until add_key",
        {"after_s": 1.0},
    ),
    Fault("vanishes", "thunder §1.7.9", "it is gone from the list for good", {"after_s": 1.0}),
    Fault(
        "host-dies",
        "thunder §6.2",
        "its processes end, and the status stays RUNNING",
        {"after_s": 1.0},
    ),
    Fault("create-500-but-created", "thunder §1.7.10", "500 to a create that did happen"),
    Fault("create-500", "thunder §1.6", "500 to a create that did not happen"),
    Fault(
        "create-hangs-but-created",
        "thunder §1.7.10",
        "the answer to a create that did happen comes after the client's patience",
        {"for_s": 60.0},
    ),
    Fault("create-cut-short", "thunder §1.7.10", "the answer to a create breaks off"),
    Fault("rate-limited", "thunder §1.6", "429 to anything"),
    Fault("html-502", "thunder §1.6", "the edge answers 502 with HTML", {"path": None}),
    Fault("list-cut-short", "thunder §1.6", "a list breaks off"),
    Fault(
        "delete-slow",
        "thunder §1.7.11",
        "DELETING for a while before it is gone",
        {"for_s": 2.0},
        times=None,
    ),
    Fault("delete-500", "thunder §1.6", "500 to a delete that did not happen"),
    Fault("snapshot-fails", "thunder §1.7.12", "a snapshot ends FAILED"),
    Fault("key-missing-in-reply", "thunder §1.2", "no `key` although none was sent"),
    Fault("no-capacity", "thunder §1.6", "a spec is unavailable and refused", {"spec": None}),
    Fault("payment-required", "thunder §1.6", "a create is refused for want of a card", times=None),
    Fault("stopped", "thunder §1.5", "STOPPED, which has no way back", {"after_s": 1.0}),
)
