"""Shell, follower and links against real boxes: what arrives, who may answer, what is left."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kit.agent import write_tree
from kit.boxes import (
    RUN,
    Rented,
    alive_with,
    end_all,
    keygen,
    kill,
    provider_at,
    rent,
    ssh_children,
    until,
)

from orchestrator.adapters.check import problems
from orchestrator.adapters.ssh import SshBoxes, agent_command
from orchestrator.adapters.ssh.keys import fingerprint, known_hosts, pinned_keys
from orchestrator.adapters.ssh.shell import put_command
from orchestrator.errors import CommandFailed, HostKeyChanged, Locked, Unreachable, Wiped
from orchestrator.ports import Endpoint, Shell
from remote.contract import CHUNK_BYTES

pytestmark = pytest.mark.e2e

# Stands in for the agent: speaks the first line of the protocol and then what the test says.
FAKE_AGENT = """
import json, sys, time
print("Welcome to the box", flush=True)
print("GPUJOB/1", flush=True)
{body}
"""
TALKS = """
print(json.dumps({"words": sys.argv[1:]}), flush=True)
while True:
    print(json.dumps({"heartbeat": None}), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def boxes(tmp_path: Path) -> SshBoxes:
    return SshBoxes(tmp_path / "state", stall_s=5.0)


@pytest.fixture
def box(tmp_path: Path, boxes: SshBoxes) -> Iterator[Rented]:
    provider = provider_at(tmp_path / "local")
    try:
        yield rent(provider, boxes)
    finally:
        end_all(provider)


@pytest.fixture
def shell(box: Rented) -> Iterator[Shell]:
    made = box.boxes.shell(box.endpoint, RUN)
    yield made
    made.close()


def put_agent(shell: Shell, body: str) -> None:
    shell.put(FAKE_AGENT.format(body=body).encode(), f".gpujob/{RUN}/agent.pyz")


def test_a_command_s_words_come_back(shell: Shell) -> None:
    done = shell.run("echo out; echo err >&2; cat", stdin=b"in")
    assert (done.rc, done.stdout, done.stderr) == (0, "out\nin", "err\n")


def test_a_command_that_says_no_is_an_error_or_not(shell: Shell) -> None:
    with pytest.raises(CommandFailed) as caught:
        shell.run("echo why >&2; exit 3")
    assert (caught.value.rc, caught.value.stderr) == (3, "why\n")
    assert shell.run("exit 3", check=False).rc == 3
    assert shell.run("kill -9 $$", check=False).rc != 0


def test_endless_output_is_cut(shell: Shell) -> None:
    done = shell.run("head -c 5000000 /dev/zero | tr '\\0' x; head -c 2000000 /dev/zero >&2")
    assert (len(done.stdout), len(done.stderr)) == (1 << 20, 1 << 20)


def test_a_command_that_reads_nothing_does_not_hang(shell: Shell) -> None:
    assert shell.run("true", stdin=b"x" * 4_000_000).rc == 0


def test_a_command_that_takes_too_long_is_unreachable_and_the_shell_lives_on(
    shell: Shell,
) -> None:
    with pytest.raises(Unreachable, match="did not end within"):
        shell.run("sleep 30", timeout_s=0.3)
    assert shell.run("echo again").stdout == "again\n"


def test_a_box_that_dies_under_a_command_is_unreachable(box: Rented, shell: Shell) -> None:
    pid = box.pid
    shell.run("mkfifo gate")
    killer = threading.Thread(
        target=lambda: (until(lambda: bool(alive_with("cat gate"))), kill(pid))
    )
    killer.start()
    with pytest.raises(Unreachable):
        shell.run("echo begun; cat gate")
    killer.join()


@pytest.mark.parametrize("name", ["plain", "deep/er/file", "with blank", "-rf", "$(id)", "a'b;c"])
def test_put_writes_the_file_whole_with_its_mode(box: Rented, shell: Shell, name: str) -> None:
    shell.put(b"\x00secret\xff" * 1000, name, mode=0o640)
    shell.put(b"second", name)
    path = box.folder / "home" / name
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".part")] == []


def test_put_to_an_absolute_path(shell: Shell, tmp_path: Path) -> None:
    shell.put(b"there", str(tmp_path / "away" / "file"), mode=0o644)
    assert (tmp_path / "away" / "file").read_bytes() == b"there"


def test_a_put_that_is_cut_short_leaves_the_old_file(box: Rented, shell: Shell) -> None:
    """The link dies with the file half sent: `cat` on the box sees a clean end of its input."""
    shell.put(b"old", "file")
    command = [*box.boxes.attach_command(box.endpoint, RUN)]
    command[command.index("-t")] = "-T"
    done = subprocess.run(
        [*command, put_command("file", size=10, mode=0o600)], input=b"half", capture_output=True
    )
    assert done.returncode == 1
    assert shell.run("cat file; ls -A | grep -c part", check=False).stdout == "old0\n"


def test_a_secret_is_in_no_command_line_while_it_is_put(box: Rented, shell: Shell) -> None:
    shell.run("mkfifo gate")
    seen: list[str] = []
    put = threading.Thread(target=lambda: shell.run("cat gate; cat >kept", stdin=b"canary-4711"))
    put.start()
    assert until(lambda: any("cat gate" in line for line in _command_lines()))
    seen += _command_lines()
    box.sh("echo >gate")
    put.join()
    assert shell.run("cat kept").stdout == "canary-4711"
    assert not any("canary-4711" in line for line in seen)


def _command_lines() -> list[str]:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join([*process.cmdline(), *process.environ().values()]))
        except psutil.Error:
            continue
    return lines


def test_another_host_key_is_never_spoken_to(box: Rented, tmp_path: Path) -> None:
    path = known_hosts(tmp_path / "state", RUN, box.endpoint.instance)
    path.write_text(f"{box.endpoint.instance} {keygen(tmp_path / 'other')}\n")
    with pytest.raises(HostKeyChanged):
        box.boxes.shell(box.endpoint, RUN).run("touch entered")
    with pytest.raises(HostKeyChanged):
        box.boxes.stream(box.endpoint, RUN).ack("checkpoint-10", 1)
    with pytest.raises(HostKeyChanged):
        list(box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0))
    assert not (box.folder / "home" / "entered").exists()


def test_a_box_without_a_pin_is_never_spoken_to(box: Rented) -> None:
    stranger = Endpoint("demo-1-9", box.endpoint.host, box.endpoint.port, box.endpoint.user)
    with pytest.raises(HostKeyChanged, match="No host key"):
        box.boxes.shell(stranger, RUN)


def test_pinning_again_is_fine_and_another_key_is_not(box: Rented, tmp_path: Path) -> None:
    where = box.endpoint
    keys = box.provider.host_keys(box.provider_id)
    box.boxes.pin(where.instance, RUN, keys, where.host, where.port)
    box.boxes.pin(where.instance, RUN, (), where.host, where.port)
    with pytest.raises(HostKeyChanged, match="Nothing was sent"):
        box.boxes.pin(where.instance, RUN, [keygen(tmp_path / "k")], where.host, where.port)


def test_without_a_told_key_the_first_one_that_answers_is_pinned(box: Rented) -> None:
    where = Endpoint("demo-1-2", box.endpoint.host, box.endpoint.port, box.endpoint.user)
    box.boxes.pin(where.instance, RUN, (), where.host, where.port)
    shell = box.boxes.shell(where, RUN)
    assert shell.run("echo known").stdout == "known\n"
    shell.close()


def test_a_told_fingerprint_pins_the_key_that_has_it(box: Rented, tmp_path: Path) -> None:
    (key,) = box.provider.host_keys(box.provider_id)
    told = [fingerprint(keygen(tmp_path / "other")), fingerprint(key)]
    assert told[1] == _ssh_keygen_fingerprint(key, tmp_path)
    where = Endpoint("demo-1-2", box.endpoint.host, box.endpoint.port, box.endpoint.user)
    for _ in range(2):
        box.boxes.pin(where.instance, RUN, told, where.host, where.port)
    assert pinned_keys(known_hosts(tmp_path / "state", RUN, "demo-1-2")) == [key]
    shell = box.boxes.shell(where, RUN)
    assert shell.run("echo known").stdout == "known\n"
    shell.close()


def test_a_box_without_the_told_fingerprint_is_never_spoken_to(box: Rented, tmp_path: Path) -> None:
    told = [fingerprint(keygen(tmp_path / "other"))]
    where = Endpoint("demo-1-2", box.endpoint.host, box.endpoint.port, box.endpoint.user)
    with pytest.raises(HostKeyChanged, match="Nothing was sent"):
        box.boxes.pin(where.instance, RUN, told, where.host, where.port)
    with pytest.raises(HostKeyChanged, match="No host key"):
        box.boxes.shell(where, RUN)


def test_a_pin_gives_way_to_no_fingerprint(box: Rented, tmp_path: Path) -> None:
    """The key that answers is the told one, and another was pinned before."""
    where = box.endpoint
    told = [fingerprint(key) for key in box.provider.host_keys(box.provider_id)]
    path = known_hosts(tmp_path / "state", RUN, where.instance)
    path.write_text(f"{where.instance} {keygen(tmp_path / 'other')}\n")
    with pytest.raises(HostKeyChanged, match="another host key than the one that was pinned"):
        box.boxes.pin(where.instance, RUN, told, where.host, where.port)


@pytest.mark.parametrize("junk", ["MD5:aa:bb", "", "SHA256", "ssh-ed25519"])
def test_what_is_neither_a_key_nor_a_fingerprint_is_refused(box: Rented, junk: str) -> None:
    with pytest.raises(HostKeyChanged, match="no host key"):
        box.boxes.pin("demo-1-2", RUN, [junk], box.endpoint.host, box.endpoint.port)


def _ssh_keygen_fingerprint(key: str, folder: Path) -> str:
    (folder / "shown.pub").write_text(key + "\n")
    command = ["ssh-keygen", "-l", "-f", str(folder / "shown.pub")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def test_a_box_that_does_not_take_our_key_is_locked_until_it_is_told(box: Rented) -> None:
    accepted = box.folder / "sshd" / "authorized_keys"
    accepted.write_text("")
    for attempt in (
        lambda: box.boxes.shell(box.endpoint, RUN).run("true"),
        lambda: box.boxes.stream(box.endpoint, RUN).ack("checkpoint-10", 1),
        lambda: list(box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0)),
    ):
        with pytest.raises(Locked, match="does not take our key"):
            attempt()
    box.provider.ensure_access(box.provider_id, box.boxes.public_key())
    assert box.sh("echo entered") == "entered\n"
    assert ssh_children() == []


@pytest.mark.parametrize(
    ("host", "user"),
    [("-oProxyCommand=touch x", "root"), ("127.0.0.1", "-oProxyCommand=x"), ("a b", "root")],
)
def test_what_could_be_an_option_of_ssh_is_refused(
    box: Rented, tmp_path: Path, host: str, user: str
) -> None:
    endpoint = Endpoint(box.endpoint.instance, host, 22, user)
    with pytest.raises(Unreachable, match="Not a host"):
        box.boxes.shell(endpoint, RUN)
    with pytest.raises(Unreachable, match="Not a host"):
        box.boxes.stream(endpoint, RUN).ack("checkpoint-10", 1)


def test_a_port_where_nobody_answers_is_unreachable(box: Rented) -> None:
    where = box.endpoint
    box.provider.terminate(box.provider_id)
    for attempt in (
        lambda: box.boxes.shell(where, RUN).run("true"),
        lambda: box.boxes.stream(where, RUN).ack("checkpoint-10", 1),
        lambda: list(box.boxes.follow(where, RUN, events=0, log=0, metrics=0)),
        lambda: box.boxes.pin("demo-1-7", RUN, (), where.host, where.port),
    ):
        with pytest.raises(Unreachable):
            attempt()
    assert ssh_children() == []


def test_a_box_without_the_agent_says_so(box: Rented) -> None:
    with pytest.raises(Wiped, match=r"agent\.pyz"):
        box.boxes.stream(box.endpoint, RUN).ack("checkpoint-10", 1)
    with pytest.raises(Wiped, match=r"agent\.pyz"):
        list(box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0))
    assert ssh_children() == []


def test_following_gives_the_agent_s_lines_and_close_leaves_no_process(
    box: Rented, shell: Shell
) -> None:
    put_agent(shell, TALKS)
    follower = box.boxes.follow(box.endpoint, RUN, events=7, log=8, metrics=9)
    lines = iter(follower)
    words = ["follow", "--root", f".gpujob/{RUN}"]
    offsets = ["--events", "7", "--log", "8", "--metrics", "9"]
    assert next(lines) == {"words": [*words, *offsets]}
    closer = threading.Timer(0.2, follower.close)
    closer.start()
    assert {str(each) for each in lines} == {"{'heartbeat': None}"}
    closer.join()
    assert ssh_children() == []
    assert until(lambda: "agent.pyz" not in box.sh("ps axww | grep '[p]ython3'; true"))


HEARS = """
import os
print(json.dumps({"heartbeat": None}), flush=True)
print(json.dumps({"heard": os.read(0, 100).decode()}), flush=True)
time.sleep(60)
"""


def test_a_follower_proves_that_it_is_there(box: Rented, shell: Shell) -> None:
    put_agent(shell, HEARS)
    follower = box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0)
    lines = iter(follower)
    assert [next(lines), next(lines)] == [{"heartbeat": None}, {"heard": "\n"}]
    follower.close()
    assert list(lines) == []


def test_a_follower_that_is_closed_before_it_began_says_nothing(box: Rented) -> None:
    follower = box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0)
    follower.close()
    assert list(follower) == []
    assert ssh_children() == []


def test_a_follower_whose_box_dies_raises(box: Rented, shell: Shell) -> None:
    put_agent(shell, TALKS)
    lines = iter(box.boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0))
    next(lines)
    kill(box.pid)
    with pytest.raises(Unreachable):
        list(lines)
    assert ssh_children() == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("time.sleep(60)", "not a byte"),
        ("print('[1]', flush=True)", "not an object"),
        ("print('{', flush=True)", "broke"),
        ("print('x' * 2000000, flush=True)", "longer than"),
        ("sys.exit(0)", "ended"),
    ],
)
def test_an_agent_that_misbehaves_is_unreachable(
    box: Rented, shell: Shell, body: str, why: str, tmp_path: Path
) -> None:
    put_agent(shell, body)
    boxes = SshBoxes(tmp_path / "state", stall_s=1.0)
    with pytest.raises(Unreachable, match=why):
        list(boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0))
    assert ssh_children() == []


def test_a_stuck_link_is_ended_by_the_watchdog(box: Rented, shell: Shell, tmp_path: Path) -> None:
    """ssh itself is stopped: its keep-alives cannot notice anything any more."""
    put_agent(shell, TALKS)
    boxes = SshBoxes(tmp_path / "state", stall_s=1.0)
    lines = iter(boxes.follow(box.endpoint, RUN, events=0, log=0, metrics=0))
    next(lines)
    (ssh,) = ssh_children()
    psutil.Process(ssh).suspend()
    with pytest.raises(Unreachable, match="not a byte"):
        list(lines)
    assert ssh_children() == []


SERVES = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from kit.agent import Server, tree_manifest
tree = Path({tree!r})
Server(tree, tree_manifest(tree), Path("inbox")).serve(sys.stdin.buffer, sys.stdout.buffer)
"""


def test_a_tree_goes_both_ways_and_a_pull_survives_the_death_of_a_link(
    box: Rented, shell: Shell, tmp_path: Path
) -> None:
    tree = tmp_path / "box"
    manifest = write_tree(tree, weights=os.urandom(8 * CHUNK_BYTES + 5), config=b"{}")
    here = Path(__file__).parents[2]
    body = SERVES.format(path=[str(here), str(here / "tests")], tree=str(tree))
    shell.put(body.encode(), f".gpujob/{RUN}/agent.pyz")
    stream, into, told = box.boxes.stream(box.endpoint, RUN), tmp_path / "into", list[int]()

    def die_once(done: int) -> None:
        told.append(done)
        if len(told) == 2:
            kill(ssh_children()[0])

    stream.pull("checkpoint-10", 1, into, manifest, die_once)
    assert told == sorted(told) and told[-1] == manifest.size_bytes
    assert problems(into, manifest) == []
    assert len(ssh_children()) <= 1, "one stays open for the next question"
    stream.push(into, manifest, "work", "merge", told.append)
    assert problems(box.folder / "home" / "inbox" / "work", manifest) == []
    stream.close()
    assert ssh_children() == []


def test_an_expected_stream_is_connected_before_it_is_asked_for(
    box: Rented, shell: Shell, tmp_path: Path
) -> None:
    tree = tmp_path / "box"
    manifest = write_tree(tree, weights=os.urandom(CHUNK_BYTES))
    here = Path(__file__).parents[2]
    body = SERVES.format(path=[str(here), str(here / "tests")], tree=str(tree))
    shell.put(body.encode(), f".gpujob/{RUN}/agent.pyz")
    for _ in range(3):
        box.boxes.expect(box.endpoint, RUN, manifest.size_bytes)
    (made,) = _until_some()
    stream = box.boxes.stream(box.endpoint, RUN)
    box.boxes.expect_nothing(box.endpoint, RUN)
    assert stream.manifest("checkpoint-10", 1).digest == manifest.digest
    assert ssh_children() == [made]
    stream.close()
    assert ssh_children() == []
    box.boxes.expect(box.endpoint, RUN, manifest.size_bytes)
    _until_some()
    box.boxes.expect_nothing(box.endpoint, RUN)
    box.boxes.expect_nothing(box.endpoint, RUN)
    assert ssh_children() == []


def _until_some() -> list[int]:
    deadline = time.monotonic() + 20
    while not ssh_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    return ssh_children()


def test_processes_that_race_for_the_client_key_agree(tmp_path: Path) -> None:
    told: list[str] = []
    threads = [
        threading.Thread(target=lambda: told.append(SshBoxes(tmp_path).public_key()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8 and len(set(told)) == 1
    key = tmp_path / "ssh" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert sorted(each.name for each in key.parent.iterdir()) == ["key", "key.pub"]


def test_an_agent_command_is_quoted() -> None:
    command = agent_command(RUN, "start", "--instance", "a b")
    assert command.startswith(f"'python3' '-I' '-S' '.gpujob/{RUN}/agent.pyz' 'start'")
    assert command.endswith("'--instance' 'a b'")


def test_a_closed_shell_runs_nothing_any_more(shell: Shell) -> None:
    assert shell.run("echo there").stdout == "there\n"
    shell.close()
    with pytest.raises(Unreachable, match="closed"):
        shell.run("echo again")


def test_closing_cuts_off_a_command_that_runs(shell: Shell) -> None:
    shell.run("true")
    timer = threading.Timer(0.3, shell.close)
    timer.start()
    with pytest.raises(Unreachable):
        shell.run("sleep 30", timeout_s=20)
    timer.join()
