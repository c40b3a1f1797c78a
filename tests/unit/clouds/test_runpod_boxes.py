"""What the RunPod emulator's faults do to real boxes, seen over real ssh."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit.boxes import keygen, until
from kit.cloud import Cloud

from orchestrator.adapters.local.box import has_namespaces

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not has_namespaces(), reason="this machine refuses namespaces"),
]


@dataclass
class Renter:
    """A client with one ssh key, who rents pods of two GPUs."""

    cloud: Cloud
    api: httpx.Client
    key: Path
    public: str

    def rent(self, **changes: Any) -> str:
        body = {
            "name": "gpujob-a",
            "image": "runpod/pytorch:1.0.2",
            "gpu": {"id": "NVIDIA A40", "count": 2},
            "disk": 20,
            "ports": ["22/tcp"],
            "env": {"PUBLIC_KEY": self.public},
            **changes,
        }
        reply = self.api.post("/v2/pods", json=body)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def ready(self, **changes: Any) -> str:
        pod = self.rent(**changes)
        assert until(lambda: self.ssh(pod, "true").returncode == 0), self.ssh(pod, "true").stderr
        return pod

    def told(self, pod: str) -> dict[str, Any]:
        return dict(self.api.get(f"/v2/pods/{pod}").json())

    def act(self, pod: str, action: str) -> None:
        reply = self.api.post(f"/v2/pods/{pod}/action", json={"action": action})
        assert reply.is_success, reply.text

    def ssh(
        self, pod: str, command: str, port: int | None = None, *options: str
    ) -> subprocess.CompletedProcess[str]:
        words = self._words(pod, port, *options)
        return subprocess.run([*words, command], capture_output=True, text=True, timeout=20)

    @contextmanager
    def session(self, pod: str) -> Iterator[subprocess.Popen[str]]:
        """An open session that has said something and would stay for long."""
        words = [*self._words(pod, None), "echo in; sleep 1000"]
        out, none = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(words, stdin=none, stdout=out, stderr=none, text=True) as session:
            try:
                assert session.stdout and session.stdout.readline() == "in\n"
                yield session
            finally:
                session.kill()

    def _words(self, pod: str, port: int | None, *options: str) -> list[str]:
        direct = self.told(pod)["ssh"]["direct"] or {"port": 1}  # nobody listens on 1
        words = ["ssh", "-F", "none", "-i", str(self.key), "-p", str(port or direct["port"])]
        for option in (*options, *PLAIN):
            words += ["-o", option]
        return [*words, "root@127.0.0.1"]

    def truth(self, pod: str) -> dict[str, Any]:
        return next(each for each in self.cloud.instances() if each["id"] == pod)


PLAIN = (
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=2",
    "IdentitiesOnly=yes",
    "BatchMode=yes",
)


@pytest.fixture(scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("runpod-boxes")
    delays = {"boot_s": 0.3, "endpoint_s": 0.1, "sshd_s": 0.2}
    cloud = Cloud.start(folder, "runpod", requests_per_minute=100_000, **delays)
    yield cloud
    violations = cloud.violations()
    cloud.close()
    assert violations == []


@pytest.fixture
def renter(one_cloud: Cloud, tmp_path: Path) -> Iterator[Renter]:
    one_cloud.disarm()
    one_cloud.balance(100.0)
    headers = {"Authorization": f"Bearer {one_cloud.key}", "User-Agent": "test/1"}
    key = tmp_path / "key"
    with httpx.Client(base_url=one_cloud.url, headers=headers, timeout=20.0) as api:
        yield Renter(one_cloud, api, key, keygen(key))
    for pod in one_cloud.instances():
        one_cloud.end(pod["id"])


def test_a_pod_is_a_machine_of_its_own(renter: Renter) -> None:
    pod = renter.ready()
    said = renter.ssh(pod, "whoami; nvidia-smi -L; cat /etc/rp_environment; echo [$RUNPOD_POD_ID]")
    lines = said.stdout.splitlines()
    assert lines[0] == "root"
    assert [line[:17] for line in lines[1:3]] == ["GPU 0: NVIDIA A40", "GPU 1: NVIDIA A40"]
    assert f'export RUNPOD_POD_ID="{pod}"' in lines
    assert f'export RUNPOD_API_KEY="{renter.truth(pod)["pod_key"]}"' in lines
    assert lines[-1] == "[]", "a plain command does not see the pod's variables"
    login = renter.ssh(pod, "bash -ic 'echo [$RUNPOD_POD_ID]' 2>/dev/null")
    assert login.stdout.strip() == f"[{pod}]"
    assert not Path("/etc/rp_environment").exists()


def test_the_log_tells_the_key_that_answers(renter: Renter) -> None:
    pod = renter.ready()
    port = renter.told(pod)["ssh"]["direct"]["port"]
    scan = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(port), "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    said = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=scan.stdout, capture_output=True, text=True, timeout=20
    )
    fingerprint = said.stdout.split()[1]
    with renter.api.stream("GET", f"/v2/pods/{pod}/logs", params={"source": "container"}) as log:
        assert any(fingerprint in line for line in log.iter_lines())


def test_running_comes_before_the_address_and_that_before_sshd(renter: Renter) -> None:
    """The same delays, a minute each, would hide nothing: what counts is the order."""
    pod = renter.rent()
    seen: list[str] = []

    def stage() -> str:
        told = renter.told(pod)
        if told["status"] != "RUNNING":
            return "booting"
        if told["ssh"]["direct"] is None:
            return "no address"
        answer = renter.ssh(pod, "true")
        return "in" if answer.returncode == 0 else "refused"

    def reached() -> bool:
        seen.append(stage())
        return seen[-1] == "in"

    assert until(reached)
    order = [each for n, each in enumerate(seen) if each not in seen[:n]]
    assert order[0] == "booting" and order[-1] == "in"
    assert order == [e for e in ("booting", "no address", "refused", "in") if e in order]


def test_a_restart_leaves_nothing_on_the_disk_and_moves(renter: Renter) -> None:
    pod = renter.ready()
    before, key = renter.told(pod)["ssh"]["direct"]["port"], renter.truth(pod)["host_key"]
    renter.ssh(pod, "touch kept; tmux -S t new -d -s work 'sleep 1000'")
    renter.act(pod, "restart")
    assert until(lambda: renter.ssh(pod, "true").returncode == 0)
    after = renter.told(pod)["ssh"]["direct"]["port"]
    assert after != before and renter.truth(pod)["host_key"] != key
    assert renter.ssh(pod, "ls").stdout == ""
    assert renter.ssh(pod, "tmux -S t ls").returncode != 0
    assert renter.ssh(pod, "true", before).returncode == 255


def test_a_stopped_pod_has_no_process(renter: Renter) -> None:
    pod = renter.ready()
    port = renter.told(pod)["ssh"]["direct"]["port"]
    renter.act(pod, "stop")
    assert until(lambda: renter.truth(pod)["pid"] is None)
    assert "refused" in renter.ssh(pod, "true", port).stderr
    renter.cloud.fault("gpu-missing")
    renter.act(pod, "start")
    assert until(lambda: renter.ssh(pod, "true").returncode == 0)
    assert renter.ssh(pod, "nvidia-smi -L").returncode == 6


def test_a_host_vanishes_without_a_farewell(renter: Renter) -> None:
    """An open session hears nothing, a new one gets no banner, and the API says RUNNING."""
    pod = renter.ready()
    with renter.session(pod) as session:
        renter.cloud.fault("host-vanishes")
        assert until(lambda: renter.truth(pod)["pid"] is None)
        assert "banner" in renter.ssh(pod, "true").stderr
        assert session.poll() is None
        assert renter.told(pod)["status"] == "RUNNING"


def test_a_vanished_host_may_also_refuse(renter: Renter) -> None:
    pod = renter.ready()
    renter.cloud.fault("host-vanishes", silent=False)
    assert until(lambda: "refused" in renter.ssh(pod, "true").stderr)
    assert renter.told(pod)["ssh"]["direct"]


def test_a_container_restarts_under_a_running_status(renter: Renter) -> None:
    pod = renter.ready()
    renter.ssh(pod, "touch kept; tmux -S t new -d -s work 'sleep 1000'")
    before, port = renter.truth(pod), renter.told(pod)["ssh"]["direct"]["port"]
    renter.cloud.fault("container-restarts", after_s=0.1)
    assert until(lambda: renter.truth(pod)["pid"] not in (None, before["pid"]))
    assert until(lambda: renter.ssh(pod, "true").returncode == 0)
    assert renter.told(pod)["status"] == "RUNNING"
    assert renter.told(pod)["ssh"]["direct"]["port"] == port
    assert renter.ssh(pod, "ls").stdout == ""
    assert renter.truth(pod)["host_key"] != before["host_key"]


def test_somebody_else_answers_at_its_address(renter: Renter, tmp_path: Path) -> None:
    pod = renter.ready()
    port = renter.told(pod)["ssh"]["direct"]["port"]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {renter.truth(pod)['host_key']}\n")
    strict = (f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "LogLevel=INFO")
    assert renter.ssh(pod, "true", port, *strict).returncode == 0
    renter.cloud.fault("host-key-changes")
    assert until(lambda: renter.ssh(pod, "true", port, *strict).returncode == 255)
    assert "HOST IDENTIFICATION HAS CHANGED" in renter.ssh(pod, "true", port, *strict).stderr
    assert "denied" in renter.ssh(pod, "true", port).stderr, "the impostor lets nobody in"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("endpoint-refuses", "refused", id="endpoint-refuses"),
        pytest.param("key-not-installed", "denied", id="key-not-installed"),
    ],
)
def test_an_address_that_lets_nobody_in(renter: Renter, fault: str, said: str) -> None:
    renter.cloud.fault(fault)
    pod = renter.rent()
    assert until(lambda: bool(renter.told(pod)["ssh"]["direct"]))
    assert until(lambda: said in renter.ssh(pod, "true").stderr)
    time.sleep(0.5)  # what would open it later has had its time
    assert said in renter.ssh(pod, "true").stderr


def test_an_open_session_drops_and_the_work_lives(renter: Renter) -> None:
    pod = renter.ready()
    renter.ssh(pod, "tmux -S t new -d -s work 'sleep 1000'")
    with renter.session(pod) as session:
        renter.cloud.fault("ssh-drops")
        assert session.wait(10) == 255
    assert renter.ssh(pod, "tmux -S t ls").returncode == 0


def test_spot_warns_the_work_before_it_dies(renter: Renter) -> None:
    pod = renter.ready()
    home = Path(renter.truth(pod)["home"])
    trap = "trap 'touch warned' TERM; touch waits; while :; do sleep 0.05; done"
    renter.ssh(pod, f'setsid -f bash -c "{trap}" </dev/null >/dev/null 2>&1')
    assert until((home / "waits").exists)
    renter.cloud.fault("spot-outbid", grace_s=0.6)
    assert until((home / "warned").exists)
    assert renter.truth(pod)["pid"] is not None
    assert until(lambda: renter.told(pod)["status"] == "EXITED")
    assert until(lambda: renter.truth(pod)["pid"] is None)


def test_the_box_stops_itself_with_its_own_key(renter: Renter) -> None:
    pod = renter.ready()
    url = f"{renter.cloud.url}/v2/pods/{pod}/action"
    program = (
        "import os, urllib.request as u; "
        f"r = u.Request('{url}', b'{{\\\"action\\\": \\\"stop\\\"}}', "
        "{'Authorization': 'Bearer ' + os.environ['RUNPOD_API_KEY'], 'User-Agent': 'gpujob'}); "
        "print(u.urlopen(r).status)"
    )
    said = renter.ssh(pod, f'. /etc/rp_environment; python3 -c "{program}"')
    assert said.stdout.strip() == "200" or said.returncode == 255, said.stderr
    assert renter.told(pod)["status"] == "EXITED"
    assert renter.cloud.bill()["running"] == []


def test_the_end_of_the_emulator_is_the_end_of_its_boxes(tmp_path: Path) -> None:
    cloud = Cloud.start(tmp_path / "cloud", "runpod", boot_s=0.1, endpoint_s=0, sshd_s=0)
    headers = {"Authorization": f"Bearer {cloud.key}", "User-Agent": "test/1"}
    with httpx.Client(base_url=cloud.url, headers=headers, timeout=20.0) as api:
        renter = Renter(cloud, api, tmp_path / "key", keygen(tmp_path / "key"))
        pod = renter.ready()
        assert cloud.processes()
        assert renter.truth(pod)["pid"]
    cloud.close()
    assert cloud.processes() == []
    assert list((tmp_path / "cloud").glob("boxes/*")) == []


def test_a_person_uses_the_commands(renter: Renter) -> None:
    def clouds(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "clouds", *words],
            capture_output=True,
            text=True,
            timeout=30,
            env=renter.cloud.python_env(),
        )

    assert clouds("fault", renter.cloud.url, "html-502", "times=1").returncode == 0
    assert renter.api.get("/v2/pods").status_code == 502
    assert "create-500-but-created" in clouds("faults", renter.cloud.url).stdout
    assert clouds("fault", renter.cloud.url, "nonsense").returncode == 1
    pod = renter.rent()
    assert pod in clouds("instances", renter.cloud.url).stdout
    assert pod in clouds("bill", renter.cloud.url).stdout
