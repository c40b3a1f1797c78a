"""The local provider sits the suite of every provider, in both of its isolations, and is held to
what it says beyond: one kill ends all, nothing outlives a crash, nothing shows on the host."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.boxes import (
    CPU,
    RUN,
    Rented,
    alive_with,
    end_all,
    keygen,
    kill,
    provider_at,
    rent,
    until,
)
from provider_suite import ProviderSuite

from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.local.box import find_tools
from orchestrator.adapters.local.folder import Folder
from orchestrator.adapters.ssh import SshBoxes
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import Missing, Refused, Transient, Unreachable
from orchestrator.ports import CreateRequest

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["namespace", "supervisor"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(tmp_path: Path, isolation: str) -> Iterator[LocalProvider]:
    made = provider_at(tmp_path / "local", isolation=isolation)
    yield made
    end_all(made)


@pytest.fixture
def boxes(tmp_path: Path) -> SshBoxes:
    return SshBoxes(tmp_path)


@pytest.fixture
def box(provider: LocalProvider, boxes: SshBoxes) -> Rented:
    return rent(provider, boxes)


class TestLocal(ProviderSuite):
    @pytest.fixture
    def provider(self, tmp_path: Path, isolation: str) -> Iterator[LocalProvider]:  # type: ignore[override]
        made = provider_at(tmp_path / "local", isolation=isolation)
        yield made
        end_all(made)

    @pytest.fixture
    def again(self, provider: LocalProvider, tmp_path: Path) -> LocalProvider:  # type: ignore[override]
        return provider_at(tmp_path / "local")

    @pytest.fixture
    def need(self) -> Need:
        return CPU

    @pytest.fixture
    def public_key(self, tmp_path: Path) -> str:
        return keygen(tmp_path / "key")


def start_work(box: Rented) -> str:
    """tmux and an orphan on the box; the words that find them in the process table."""
    name = f"sleep 10{os.getpid()}.{box.endpoint.port}"
    box.sh(f"tmux -S t.sock new-session -d -s work '{name}'")
    box.sh(f"setsid --fork {name} </dev/null >/dev/null 2>&1")
    assert len(alive_with(name)) >= 2
    return name


def test_terminate_leaves_no_process_and_no_file(box: Rented) -> None:
    name = start_work(box)
    box.provider.terminate(box.provider_id)
    assert alive_with(name) == []
    assert alive_with(str(box.folder)) == []
    assert list(box.folder.parent.iterdir()) == []


@pytest.mark.parametrize("isolation", ["namespace"], indirect=True)
def test_killing_the_one_process_ends_all(box: Rented) -> None:
    name = start_work(box)
    kill(box.pid)
    assert until(lambda: alive_with(name) == [])
    assert until(lambda: box.provider.list().instances == ())


@pytest.mark.parametrize("isolation", ["supervisor"], indirect=True)
def test_orphans_of_a_killed_supervisor_are_told_and_found(box: Rented) -> None:
    name = start_work(box)
    kill(box.pid)
    assert until(lambda: [each.state for each in box.provider.list().instances] == ["BROKEN"])
    box.provider.terminate(box.provider_id)
    assert alive_with(name) == []
    assert until(lambda: box.provider.list().instances == ())


def test_an_open_connection_ends_with_the_box(box: Rented) -> None:
    shell = box.boxes.shell(box.endpoint, RUN)
    assert shell.run("echo there").stdout == "there\n"
    box.provider.terminate(box.provider_id)
    with pytest.raises(Unreachable):
        shell.run("echo still there")
    shell.close()


def test_a_dead_box_is_gone_and_its_folder_can_be_ended(box: Rented) -> None:
    kill(box.pid)
    assert until(lambda: box.provider.list().instances == ())
    box.provider.terminate(box.provider_id)
    assert not box.folder.exists()


def test_a_reused_pid_is_not_the_box(box: Rented) -> None:
    """The record names a living process, but not the one that was started."""
    identity = box.folder / "identity"
    box.provider.terminate(box.provider_id)
    box.folder.mkdir()
    boot, stat = Path("/proc/sys/kernel/random/boot_id").read_text(), f"/proc/{os.getpid()}/stat"
    fields = Path(stat).read_text().split()
    fields[21] = str(int(fields[21]) - 1)
    identity.write_text(boot + " ".join(fields) + "\n")
    assert until(lambda: box.provider.list().instances == ())
    box.provider.terminate(box.provider_id)  # and this test still runs


@pytest.mark.parametrize("isolation", ["namespace"], indirect=True)
def test_a_namespace_with_the_number_of_a_dead_one_is_not_ended_with_it(
    box: Rented, boxes: SshBoxes
) -> None:
    """The kernel gives the number of a dead box's namespace to the next box."""
    heir = rent(box.provider, boxes, f"{RUN}-2")
    kill(box.pid)
    assert until(lambda: len(box.provider.list().instances) == 1)
    first = (box.folder / "namespace").read_text().splitlines()[1:]
    number = (heir.folder / "namespace").read_text().splitlines()[0]
    (box.folder / "namespace").write_text("\n".join([number, *first]) + "\n")
    box.provider.terminate(box.provider_id)
    assert heir.sh("echo there") == "there\n"
    assert not box.folder.exists()


def create_and_return(root: Path, isolation: str, key: str) -> None:
    offer = Offer("local", "cpu-2", "cpu", 2, 1, 1, 1, 0.0)
    request = CreateRequest("one", "gpujob-one", offer, key, 1)
    provider_at(root, isolation=isolation).create(request)


def create_and_die(root: Path, isolation: str, key: str, at: str) -> None:
    """A controller that is killed in the middle of a create: before the process starts, or
    after it started and before anybody looked at it."""
    started: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        starts = event == "subprocess.Popen" and arguments[0] == "setsid"
        looks = event == "open" and str(arguments[0]).endswith("/identity")
        if starts:
            started.append(event)
        if (starts and at == "intent") or (looks and started):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    create_and_return(root, isolation, key)


@pytest.mark.parametrize("at", ["intent", "started"])
def test_a_crash_in_the_middle_of_create_leaks_nothing(
    tmp_path: Path, provider: LocalProvider, isolation: str, at: str
) -> None:
    key = keygen(tmp_path / "key")
    arguments = (tmp_path / "local", isolation, key, at)
    victim = multiprocessing.get_context("spawn").Process(target=create_and_die, args=arguments)
    victim.start()
    victim.join(30)
    assert victim.exitcode == -signal.SIGKILL
    if at == "intent":
        assert provider.list().instances == ()
        assert list((tmp_path / "local").iterdir()) == []
        return
    assert until(lambda: [each.state for each in provider.list().instances] == ["RUNNING"])
    (told,) = provider.list().instances
    assert told.mark == "gpujob-one"
    provider.terminate(told.provider_id)
    assert alive_with(str(tmp_path / "local")) == []


def test_a_box_outlives_the_controller_that_made_it(
    tmp_path: Path, provider: LocalProvider, isolation: str
) -> None:
    key = keygen(tmp_path / "key")
    maker = multiprocessing.get_context("spawn").Process(
        target=create_and_return, args=(tmp_path / "local", isolation, key)
    )
    maker.start()
    maker.join(30)
    assert [each.state for each in provider.list().instances] == ["RUNNING"]


def test_a_box_in_the_making_is_pending_and_not_ended(box: Rented, provider: LocalProvider) -> None:
    kill(box.pid)
    (box.folder / "identity").unlink()
    with Folder(box.folder).locked() as lock:
        assert lock is not None
        assert [each.state for each in provider.list().instances] == ["PENDING"]
    assert provider.list().instances == ()


def test_leftovers_of_a_crash_are_swept(provider: LocalProvider, tmp_path: Path) -> None:
    for name in (".new-local-00000001", ".gone-local-00000002"):
        (tmp_path / "local" / name / "home").mkdir(parents=True)
    assert provider.list().instances == ()
    assert list((tmp_path / "local").iterdir()) == []


def test_the_box_has_its_own_home_and_none_of_our_environment(
    box: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert box.sh("pwd; cd; pwd").split() == [str(box.folder / "home")] * 2
    names = {line.partition("=")[0] for line in box.sh("env").splitlines()}
    assert names <= {
        *("HOME", "PATH", "PWD", "USER", "LOGNAME", "SHELL", "SHLVL", "LANG", "TMPDIR", "_"),
        *("GPUJOB_BOX", "SSH_CLIENT", "SSH_CONNECTION", "SSH_ORIGINAL_COMMAND", "OLDPWD"),
    }


def test_a_secret_of_the_controller_reaches_no_process_of_the_box(
    tmp_path: Path, boxes: SshBoxes, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"canary-{tmp_path.name}")
    provider = provider_at(tmp_path / "local", isolation=isolation)
    try:
        box = rent(provider, boxes)
        work = start_work(box)
        pids = [box.pid, *alive_with(work), *alive_with(str(box.folder))]
        told = [Path(f"/proc/{pid}/environ").read_bytes() for pid in pids]
        assert len(told) > 3
        assert not any(b"canary-" in each for each in told)
    finally:
        end_all(provider)


def test_a_private_home_does_not_show_on_this_machine(tmp_path: Path, boxes: SshBoxes) -> None:
    provider = provider_at(tmp_path / "local", private_home=True)
    try:
        box = rent(provider, boxes)
        box.sh("echo here >file; mkdir -p .gpujob/x; sync")
        assert box.sh("cat file") == "here\n"
        assert list((box.folder / "home").iterdir()) == []
    finally:
        end_all(provider)


def test_a_private_home_needs_a_namespace(tmp_path: Path) -> None:
    provider = provider_at(tmp_path / "local", private_home=True, isolation="supervisor")
    with pytest.raises(Missing, match="mount namespace"):
        rent(provider, SshBoxes(tmp_path))
    assert not (tmp_path / "local").exists()


def test_without_sshd_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"sshd, .* not installed") as caught:
        find_tools(str(tmp_path))
    assert "openssh-server" in str(caught.value.hint)


def test_an_sshd_that_does_not_start_leaves_nothing(
    provider: LocalProvider, tmp_path: Path
) -> None:
    """A line break in the folder's name breaks the configuration."""
    offer = Offer("local", "cpu-2", "cpu", 2, 1, 1, 1, 0.0)
    broken = provider_at(tmp_path / 'lo"cal\n', isolation=provider._isolation)
    with pytest.raises(Transient, match="Nothing was rented"):
        broken.create(CreateRequest("one", "gpujob-one", offer, keygen(tmp_path / "k"), 1))
    assert list(broken._root.iterdir()) == []


def test_a_gpu_is_refused(provider: LocalProvider) -> None:
    offer = Offer("local", "x", "H100", 1, 1, 1, 1, 0.0)
    with pytest.raises(Refused, match="H100"):
        provider.create(CreateRequest("one", "gpujob-one", offer, "ssh-ed25519 AAAA", 1))


def test_a_price_can_be_pretended(tmp_path: Path) -> None:
    (offer,) = provider_at(tmp_path, usd_per_hour=1.5).offers(CPU)
    assert offer.usd_per_hour == 1.5


def test_another_key_gets_in_only_when_it_is_given(box: Rented, tmp_path: Path) -> None:
    other = SshBoxes(tmp_path / "other")
    key = other.public_key()
    where = box.endpoint
    other.pin(where.instance, RUN, box.provider.host_keys(box.provider_id), where.host, where.port)
    with pytest.raises(Unreachable):
        other.shell(where, RUN).run("true")
    box.provider.ensure_access(box.provider_id, key)
    box.provider.ensure_access(box.provider_id, key)
    shell = other.shell(where, RUN)
    assert shell.run("echo in").stdout == "in\n"
    shell.close()


def test_the_log_tells_what_sshd_said(box: Rented) -> None:
    box.sh("true")
    assert "Server listening on 127.0.0.1" in box.provider.logs(box.provider_id)
    assert box.provider.logs("local-00000000") == ""
