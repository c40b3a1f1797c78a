"""What the Thunder emulator's switches do to real boxes, seen over real ssh. The cloud's clock is
driven: what lasts, lasts until a test moves it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.boxes import keygen, until
from kit.cloud import Cloud
from kit.thunder import BOOTED_S, PATIENCE_S, START, Renter, act, client, create, item, listed

from orchestrator.adapters.local.box import has_namespaces

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not has_namespaces(), reason="this machine refuses namespaces"),
]
DENIED, REFUSED = "Permission denied", "Connection refused"


@pytest.fixture(scope="module")
def one_renter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renter]:
    folder = tmp_path_factory.mktemp("thunder-boxes")
    cloud = Cloud.start(folder, "thunder", driven=START)
    key = folder / "key"
    try:
        with client(cloud) as api:
            yield Renter(cloud, api, key, keygen(key))
            assert cloud.violations() == []
    finally:
        cloud.close()


@pytest.fixture
def renter(one_renter: Renter) -> Iterator[Renter]:
    """Whatever a test rents ends with it."""
    cloud = one_renter.cloud
    cloud.disarm()
    kept = {each["id"] for each in cloud.instances()}
    yield one_renter
    for each in cloud.instances():
        if each["id"] not in kept:
            cloud.end(each["id"])


@pytest.fixture(scope="module")
def one_instance(one_renter: Renter) -> str:
    """One for all tests after which an instance is as good as before."""
    one_renter.cloud.disarm()
    return one_renter.ready(gpu_type="a100xl", cpu_cores=16)


@pytest.fixture
def working(renter: Renter, one_instance: str) -> str:
    """An instance with something that is on its disk, and something that runs."""
    renter.starts_something(one_instance)
    return one_instance


def test_an_instance_is_a_machine_of_its_own(renter: Renter) -> None:
    uuid = renter.ready(gpu_type="a100xl", num_gpus=4, cpu_cores=60, disk_size_gb=400)
    said = renter.out(uuid, "whoami; nvidia-smi -L | wc -l; test -e /etc/ld.so.preload || echo no")
    assert said.split() == ["ubuntu", "4", "no"]
    assert item(renter.api, uuid)["port"] == renter.truth(uuid)["port"]


def test_few_gpus_are_virtual(renter: Renter) -> None:
    uuid = renter.ready()
    said = renter.ssh(uuid, "grep -c thunder /etc/ld.so.preload; grep -c libthunder /proc/$$/maps")
    assert int(said.stdout.split()[0]) == 1 and int(said.stdout.split()[1]) > 0
    assert said.stderr == ""
    assert not Path("/etc/ld.so.preload").exists()


def test_noise_before_every_command(renter: Renter) -> None:
    renter.cloud.fault("preload-noise")
    said = renter.ssh(renter.ready(), "echo out")
    assert said.stdout == "out\n"
    assert "ld.so: object '/etc/thunder/libthunder.so'" in said.stderr
    assert "cannot be preloaded" in said.stderr


def test_a_key_that_was_made_lets_in(renter: Renter, tmp_path: Path) -> None:
    made = create(renter.api, public_key=None)
    renter.cloud.advance(BOOTED_S)
    path = tmp_path / "made"
    path.write_text(made["key"])
    path.chmod(0o600)
    said = renter.ssh(made["uuid"], "true", key=path)
    assert said.returncode == 0, said.stderr
    assert DENIED in renter.ssh(made["uuid"], "true").stderr


def test_the_port_is_closed_and_then_the_key_on_its_way(renter: Renter) -> None:
    renter.cloud.fault("running-but-port-closed", for_s=60.0)
    renter.cloud.fault("auth-refused", for_s=60.0)
    uuid = renter.rent()
    renter.cloud.advance(BOOTED_S)
    told = item(renter.api, uuid)
    assert (told["status"], told["ip"]) == ("RUNNING", "127.0.0.1")
    assert REFUSED in renter.ssh(uuid, "true").stderr
    renter.cloud.advance(60)
    assert DENIED in renter.ssh(uuid, "true").stderr
    renter.cloud.advance(60)
    renter.reachable(uuid)


def test_an_address_changes_under_a_living_job(renter: Renter, working: str) -> None:
    before = renter.words(working)
    port = item(renter.api, working)["port"]
    renter.befall(working, "address-changes", for_s=60.0)
    assert item(renter.api, working)["status"] == "MIGRATING"
    assert item(renter.api, working)["port"] != port
    for words in (before, renter.words(working)):
        said = subprocess.run([*words, "true"], capture_output=True, text=True, timeout=PATIENCE_S)
        assert REFUSED in said.stderr
    renter.cloud.advance(60)
    renter.reachable(working)
    assert renter.runs(working)


def test_a_migration_may_cost_the_job_and_the_host_key(renter: Renter, working: str) -> None:
    before = renter.truth(working)["host_key"]
    renter.befall(working, "address-changes", for_s=60.0, new_host_key=True)
    renter.cloud.advance(60)
    renter.reachable(working)
    assert renter.truth(working)["host_key"] != before
    assert not renter.runs(working)
    assert renter.out(working, "cat file") == "kept\n"


def test_a_container_restarts(renter: Renter, working: str) -> None:
    before = renter.truth(working)
    renter.befall(working, "container-restarts", down_s=60.0)
    told = item(renter.api, working)
    assert told["status"] == "RUNNING" and "lastRestart" in told
    assert REFUSED in renter.ssh(working, "true").stderr
    renter.cloud.advance(60)
    renter.reachable(working)
    assert not renter.runs(working)
    assert renter.out(working, "cat file") == "kept\n"
    after = renter.truth(working)
    assert after["pid"] != before["pid"]
    assert (after["port"], after["host_key"]) == (before["port"], before["host_key"])


def test_a_restart_loses_the_keys_until_one_is_added(renter: Renter) -> None:
    uuid = renter.ready()
    renter.befall(uuid, "container-restarts-keys-lost")
    assert "lastRestart" in item(renter.api, uuid)
    assert DENIED in renter.ssh(uuid, "true").stderr
    renter.cloud.fault("add-key-slow", instance=uuid, for_s=60.0)
    assert act(renter.api, uuid, "add_key", {"public_key": renter.public}).status_code == 200
    assert DENIED in renter.ssh(uuid, "true").stderr
    renter.cloud.advance(60)
    renter.reachable(uuid)


def test_connections_drop(renter: Renter, working: str) -> None:
    words = [*renter.words(working), "echo in; sleep 1000"]
    none, out = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(words, stdin=none, stdout=out, stderr=none, text=True) as session:
        try:
            assert session.stdout and session.stdout.readline() == "in\n"
            renter.befall(working, "ssh-drops")
            assert session.wait(PATIENCE_S) == 255
        finally:
            session.kill()
    assert renter.runs(working)


def test_another_host_key_answers(renter: Renter) -> None:
    uuid = renter.ready()
    renter.befall(uuid, "host-key-changes")
    assert DENIED in renter.ssh(uuid, "true").stderr, "somebody else, who knows no key of ours"


@pytest.mark.parametrize("silent", [False, True])
def test_a_host_dies_and_bills(renter: Renter, silent: bool) -> None:
    uuid = renter.ready()
    renter.befall(uuid, "host-dies", silent=silent)
    assert renter.truth(uuid)["pid"] is None
    assert item(renter.api, uuid)["status"] == "RUNNING"
    assert uuid in renter.cloud.bill()["running"]
    said = renter.ssh(uuid, "true", patience_s=1)
    assert said.returncode == 255 and (REFUSED in said.stderr) is not silent


def test_a_modify_keeps_the_disk(renter: Renter, working: str) -> None:
    assert act(renter.api, working, "modify", {"num_gpus": 2}).status_code == 200
    assert item(renter.api, working)["status"] == "MODIFYING"
    renter.cloud.advance(BOOTED_S)
    renter.reachable(working)
    assert renter.out(working, "cat file; nvidia-smi -L | wc -l").split() == ["kept", "2"]
    assert not renter.runs(working)


def test_a_snapshot_holds_the_disk(renter: Renter, working: str) -> None:
    body = {"instanceId": working, "name": "prepared"}
    assert renter.api.post("/v1/snapshots/create", json=body).status_code == 202
    renter.cloud.advance(BOOTED_S)
    assert renter.api.get("/v1/snapshots/list").json()[0]["status"] == "READY"
    assert renter.out(renter.ready(template="prepared"), "cat file") == "kept\n"


@pytest.mark.parametrize("fault", ["delete", "vanishes", "stopped"])
def test_nothing_is_left_of_it(renter: Renter, fault: str) -> None:
    before = renter.pids()
    uuid = renter.ready()
    renter.starts_something(uuid)
    folder = renter.truth(uuid)["folder"]
    assert renter.pids() - before
    if fault == "delete":
        act(renter.api, uuid, "delete")
        renter.cloud.advance(BOOTED_S)
    else:
        renter.befall(uuid, fault)
    assert until(lambda: renter.pids() <= before, PATIENCE_S)
    if fault != "stopped":
        assert uuid not in {each["uuid"] for each in listed(renter.api).values()}
        assert until(lambda: not Path(folder).exists(), PATIENCE_S)
