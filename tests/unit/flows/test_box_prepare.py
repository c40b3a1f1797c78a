"""What is done on a box before the trainer: in order, against a shell that plays the box."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kit.plans import plan_of

from orchestrator.core.instance import Instance
from orchestrator.core.offer import Offer, Rental
from orchestrator.core.plan import CheckpointPlan, Plan, PushPlan, ResumePlan, Upload
from orchestrator.core.run import Attempt
from orchestrator.errors import CommandFailed, Locked, Missing, Unusable, Wiped
from orchestrator.flows import box, outfit
from orchestrator.flows import prepare as setup
from orchestrator.flows.box import Kit
from orchestrator.flows.outfit import Requirement
from orchestrator.ports import Capabilities, Completed, Endpoint, SelfStop, TaskContext
from remote.agent.layouts import layouts_of
from remote.contract import FileEntry, Manifest

ROOT = Path(__file__).parents[3]
RUN = "demo-1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOISE = "ERROR: ld.so: object '/etc/shim.so' cannot be preloaded: ignored.\n"
GPU = "GPU {}: NVIDIA A40 (UUID: GPU-{})\n"
GOOD = {
    "torch": "2.8.0+cu128",
    "transformers": "5.2.0",
    "peft": "0.18",
    "deepspeed": "0.18.0",
    "accelerate": "1.10.1",
    "pyarrow": "18.0.0",
    "ninja": "1.11.1.4",
}


@dataclass
class Machine:
    """The box: what it holds and says. It speaks noise on the other output, as some do."""

    gpus: int = 2
    python: bool = True
    tmux: bool = True
    may_install: bool = True
    locked: bool = False
    wiped: bool = False
    volume: bool = True
    pip_fails: int = 0
    push_python: str = ""
    packages: dict[str, str | None] = field(default_factory=lambda: dict[str, str | None](GOOD))
    ran: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, command: str, stdin: str) -> tuple[int, str]:
        if "nvidia-smi" in command:
            return 0, "".join(GPU.format(each, each) for each in range(self.gpus))
        if "sys.version_info" in command:
            return int(not self.python), ""
        if "tmux -V" in command:
            return (0, "tmux 3.4") if self.tmux else (127, "")
        if "apt-get" in stdin:
            self.tmux = self.may_install
            return int(not self.may_install), ""
        if "import boto3" in stdin:
            return 0, json.dumps({"python": self.push_python, "boto3": bool(self.push_python)})
        if command.endswith("python3 -"):
            return 0, f"Welcome!\n{json.dumps(self.packages)}\n"
        if "'pip'" in command:
            return self.pip(command)
        if stdin.startswith("umask 077\nif"):
            return (0 if self.volume else outfit.NO_VOLUME), ""
        if command.startswith("test -e"):
            return int(self.wiped), ""
        if "agent.pyz' 'start'" in command:
            return (2, "") if self.wiped else (0, '{"v": 1, "started": true, "pid": 1}')
        return 0, ""

    def pip(self, command: str) -> tuple[int, str]:
        if self.pip_fails:
            self.pip_fails -= 1
            return 1, ""
        for line in re.findall(r"'([a-z]+>=[^']*)'", command):
            self.packages[Requirement(line).name] = GOOD[Requirement(line).name]
        return 0, ""

    def index(self, text: str) -> int:
        """Where in what it ran and read something was."""
        return next(at for at, each in enumerate(self.inputs) if text in each)


class ScriptedShell:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0, check: bool = True
    ) -> Completed:
        if self._machine.locked:
            raise Locked("it does not take our key")
        self._machine.ran.append(command)
        self._machine.inputs.append(command + "\n" + stdin.decode())
        rc, stdout = self._machine.answer(command, stdin.decode())
        if check and rc:
            raise CommandFailed("no", rc)
        return Completed(rc, stdout, NOISE)

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        self._machine.files[path] = data

    def close(self) -> None:
        pass


class ScriptedBoxes:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.pinned: list[tuple[str, ...]] = []

    def pin(self, instance: str, run: str, host_keys: Sequence[str], host: str, port: int) -> None:
        self.pinned.append((instance, run, *host_keys, host, str(port)))

    def unpin(self, instance: str, run: str) -> None:
        raise AssertionError

    def shell(self, endpoint: Endpoint, run: str) -> ScriptedShell:
        return ScriptedShell(self._machine)

    def stream(self, endpoint: Endpoint, run: str, transfer: object = None) -> ScriptedStream:
        return ScriptedStream(self._machine)

    def follow(self, endpoint: Endpoint, run: str, **_: int) -> Any:
        raise AssertionError

    def public_key(self) -> str:
        return "ssh-ed25519 AAAA"


class ScriptedStream:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def push(self, source: Path, manifest: Manifest, dest: str, mode: str, progress: Any) -> None:
        self._machine.inputs.append(f"push {dest}")

    def close(self) -> None:
        pass


class ScriptedProvider:
    name = "cloud"

    def __init__(self, login_file: str = "", stop: SelfStop | None = None) -> None:
        self.capabilities = Capabilities(login_file=login_file)
        self.stop = stop
        self.granted: list[tuple[str, str]] = []

    def host_keys(self, provider_id: str) -> Sequence[str]:
        return ("SHA256:abc",)

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        self.granted.append((provider_id, public_key))

    def self_stop(self, provider_id: str) -> SelfStop | None:
        return replace(self.stop, url=self.stop.url + provider_id) if self.stop else None


OFFER = Offer("cloud", "a40-2", "A40", 2, 8, 64, 20, 1.0)
INSTANCE = Instance("demo-1-1", "cloud", "a40-2", 1.0, "mark", NOW, provider_id="p1")


def plan(**changes: Any) -> Plan:
    checkpoints = CheckpointPlan("out", "auto", "/mirror", ResumePlan("", {}, ""))
    given: dict[str, Any] = {"offers": (OFFER,), "command": "train", "checkpoints": checkpoints}
    return plan_of(**{**given, **changes})


def kit(machine: Machine, **changes: Any) -> Kit:
    return replace(
        Kit(
            run=RUN,
            plan=plan(),
            boxes=ScriptedBoxes(machine),  # type: ignore[arg-type]
            endpoint=Endpoint("demo-1-1", "10.0.0.1", 22, "root"),
            world_size=2,
            folder=Path("/state"),
            mirror=None,  # type: ignore[arg-type]
            agent=b"agent",
            library=(ROOT, Manifest(())),
        ),
        **changes,
    )


def prepare(
    machine: Machine, provider: ScriptedProvider | None = None, **changes: Any
) -> list[Any]:
    """What was reported."""
    said: list[Any] = []
    context = TaskContext(said.append, lambda: False, lambda _: None)
    made = kit(machine, plan=plan(**changes))
    setup.prepare(context, made, provider or ScriptedProvider(), INSTANCE)  # type: ignore[arg-type]
    return said


def start(machine: Machine, **changes: Any) -> Mapping[str, Any]:
    """The spec that was put on the box."""
    context = TaskContext(lambda _: None, lambda: False, lambda _: None)
    box.start(context, kit(machine, **changes), Attempt(1, "demo-1-1", None, NOW))
    return dict(json.loads(machine.files[f".gpujob/{RUN}/attempts/1/spec.json"]))


def test_a_good_box_is_reached_and_given_its_agent() -> None:
    machine = Machine()
    assert prepare(machine) == [("reached", 0)]
    assert machine.files[f".gpujob/{RUN}/agent.pyz"] == b"agent"
    assert not any("apt-get" in each or "pip" in each for each in machine.inputs)


def test_a_box_that_does_not_take_our_key_is_told_it_and_tried_again() -> None:
    machine, provider = Machine(locked=True), ScriptedProvider()
    with pytest.raises(Locked):
        prepare(machine, provider)
    assert provider.granted == [("p1", "ssh-ed25519 AAAA")]
    machine.locked = False
    assert prepare(machine, provider) == [("reached", 0)]
    assert len(provider.granted) == 1


@pytest.mark.parametrize("shown", [0, 1])
def test_too_few_gpus_are_another_box(shown: int) -> None:
    machine = Machine(gpus=shown)
    with pytest.raises(Unusable, match=f"the box shows {shown} of 2 GPUs"):
        prepare(machine)
    assert machine.files == {}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (GPU.format(0, 0) + GPU.format(1, 1), True),
        (GPU.format(0, 0) * 3, True),
        (GPU.format(0, 0) + "  MIG 1g.5gb Device 0: (UUID: MIG-1)\n" * 3, False),
        ("No devices found.\n", False),
        ("NVIDIA-SMI has failed because it could not talk to the driver: GPU\n", False),
    ],
    ids=["two", "three", "slices", "none", "no driver"],
)
def test_how_gpus_are_counted(text: str, fits: bool) -> None:
    class Says(ScriptedShell):
        def run(self, command: str, **_: Any) -> Completed:
            return Completed(0, text, NOISE + GPU)

    if fits:
        outfit.check_gpus(Says(Machine()), "", 2)
    else:
        with pytest.raises(Unusable):
            outfit.check_gpus(Says(Machine()), "", 2)


def test_a_box_without_gpus_is_not_asked_for_them() -> None:
    machine = Machine(gpus=0)
    prepare(machine, offers=(replace(OFFER, gpu="cpu"),))
    assert not any("nvidia-smi" in each for each in machine.ran)


def test_a_box_without_python_is_refused() -> None:
    with pytest.raises(Missing, match=r"no Python 3\.9"):
        prepare(Machine(python=False))


def test_tmux_is_installed_once_where_that_is_allowed() -> None:
    machine = Machine(tmux=False)
    prepare(machine)
    assert sum("apt-get" in each for each in machine.inputs) == 1


def test_a_box_that_cannot_have_tmux_is_refused_with_what_to_do() -> None:
    with pytest.raises(Missing, match="no tmux") as caught:
        prepare(Machine(tmux=False, may_install=False))
    assert caught.value.hint == "choose an image that has tmux"


def test_checks_and_setup_see_what_a_login_sees() -> None:
    machine = Machine()
    prepare(machine, ScriptedProvider("/etc/rp_environment"), setup="pip install x")
    for what in ("nvidia-smi", "tmux -V", "pip install x"):
        assert ". '/etc/rp_environment'" in machine.inputs[machine.index(what)], what
    asked = [". '/etc/" in each for each in machine.ran if "sys.version_info" in each]
    assert asked == [False, True], "transfers start the agent without a login"


def test_a_login_changes_the_surroundings_and_nothing_else(tmp_path: Path) -> None:
    """By a real shell: the file is noisy, and moves the home folder."""
    file = tmp_path / "it's an environment"
    file.write_text('echo noise; echo more >&2\nexport HOME="/" PWD="/" TOKEN="a b" PATH="/pod"\n')
    command = f"{outfit.login(str(file))}echo $HOME:$PATH:$TOKEN:$PWD"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == f"{tmp_path}:/pod:{tmp_path}/.local/bin:a b:{tmp_path}\n"


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_login_file_that_is_not_there_is_no_error(tmp_path: Path, shell: str) -> None:
    command = f"{outfit.login(str(tmp_path / 'none'))}echo here"
    done = subprocess.run([shell, "-ec", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("here\n", "")


# The trainer's packages


def test_a_box_that_has_the_packages_installs_nothing() -> None:
    machine = Machine()
    prepare(machine, train={})
    assert not any("'pip'" in each for each in machine.ran)


def test_only_what_is_missing_or_too_old_is_installed_and_torch_stays() -> None:
    machine = Machine(packages={**GOOD, "peft": None, "transformers": "4.57.1"})
    prepare(machine, train={})
    (command,) = [each for each in machine.ran if "'pip'" in each]
    assert re.findall(r"'([a-z]+[>=][^']*)'", command) == ["transformers>=5.0,<6", "peft>=0.17"]
    assert "PIP_BREAK_SYSTEM_PACKAGES=1" in command
    assert machine.files[f".gpujob/{RUN}/constraints.txt"] == b"torch==2.8.0+cu128\n"


def test_a_bare_box_gets_all_of_them() -> None:
    machine = Machine(packages=dict.fromkeys(GOOD))
    prepare(machine, train={})
    assert machine.packages == GOOD
    assert machine.files[f".gpujob/{RUN}/constraints.txt"] == b""


def test_what_only_some_settings_need_comes_with_them() -> None:
    class Optional(Machine):
        def pip(self, command: str) -> tuple[int, str]:
            self.packages |= {"bitsandbytes": "0.45.0", "wandb": "1.0"}
            return 0, ""

    machine = Optional()
    prepare(machine, train={"qlora": {}, "args": {"report_to": "wandb"}})
    (command,) = [each for each in machine.ran if "'pip'" in each]
    assert re.findall(r"'([a-z]+>=[^']*)'", command) == ["bitsandbytes>=0.45", "wandb>=0.18"]


def test_packages_come_after_the_job_s_own_setup() -> None:
    machine = Machine(packages={**GOOD, "peft": None})
    prepare(machine, train={}, setup="echo own setup")
    assert machine.index("own setup") < machine.index("'pip'")


def test_a_torch_that_is_too_old_is_left_alone_and_said() -> None:
    machine = Machine(packages={**GOOD, "torch": "2.4.0", "peft": None})
    with pytest.raises(Missing, match=r"torch 2\.4\.0, and the trainer needs torch>=2\.6"):
        prepare(machine, train={})
    assert not any("'pip'" in each for each in machine.ran)


@pytest.mark.parametrize(("fails", "works"), [(1, True), (2, False)])
def test_pip_gets_a_second_try(fails: int, works: bool) -> None:
    machine = Machine(packages={**GOOD, "peft": None}, pip_fails=fails)
    if works:
        prepare(machine, train={})
    else:
        with pytest.raises(CommandFailed, match=r"could not install peft>=0\.17"):
            prepare(machine, train={})


def test_what_pip_put_where_python_does_not_look_is_an_error() -> None:
    class Elsewhere(Machine):
        def pip(self, command: str) -> tuple[int, str]:
            return 0, ""

    with pytest.raises(CommandFailed, match="could not install peft"):
        prepare(Elsewhere(packages={**GOOD, "peft": None}), train={})


@pytest.mark.parametrize(
    ("line", "version", "fits"),
    [
        ("a>=1.16,<2", "1.16.0", True),
        ("a>=1.16,<2", "1.9", False),
        ("a>=1.16,<2", "2.0.0", False),
        ("a>=1.16,<2", "1.99.dev0", True),
        ("a>=2.6", "2.10.1+cu128", True),
        ("a>=2.0", "2", True),
        ("a>=5.0,<6", "5.0.0rc1", True),
        ("a>=5.0,<6", "", True),
        ("a", "0.0.1", True),
    ],
)
def test_version_ranges(line: str, version: str, fits: bool) -> None:
    assert Requirement(line).accepts(version) is fits


def test_the_box_needs_what_the_extra_says() -> None:
    text = (ROOT / "remote" / "trainer" / "requirements.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["trainer"]
    assert [each.line for each in outfit.requirements(text)] == extra
    assert {each.name for each in outfit.requirements(text)} == set(GOOD)


def test_the_probe_tells_versions_and_absence() -> None:
    class Real(ScriptedShell):
        def run(self, command: str, *, stdin: bytes = b"", **_: Any) -> Completed:
            done = subprocess.run(["python3", "-"], input=stdin, capture_output=True)
            return Completed(done.returncode, done.stdout.decode(), done.stderr.decode())

    found = outfit._versions(Real(Machine()), "", ["json", "no_such_module_here"])
    assert found == {"json": "", "no_such_module_here": None}


# The volume


VOLUME = Rental(volume="vol-1", volume_path="/workspace")


def test_a_volume_comes_before_everything_that_lies_on_it() -> None:
    machine = Machine()
    prepare(machine, rental=VOLUME, setup="echo own setup", train={})
    linked = machine.inputs[machine.index("place '/workspace")]
    for name in ("pins", "seals", "incoming"):
        assert f"place '/workspace/gpujob/{RUN}/{name}' '.gpujob/{RUN}/{name}'" in linked
    assert f"place '/workspace/gpujob/{RUN}/work' 'gpujob/{RUN}'" in linked
    assert "tmux" not in linked and "lock" not in linked and "secrets" not in linked
    assert machine.index("place '/workspace") < machine.index("mkdir -p .gpujob")
    setup = machine.inputs[machine.index("own setup")]
    assert "export HF_HOME='/workspace/.cache/huggingface';" in setup


def test_a_volume_that_is_not_there_is_another_box() -> None:
    with pytest.raises(Unusable, match="no volume at /workspace"):
        prepare(Machine(volume=False), rental=VOLUME)


def test_models_are_kept_on_the_volume_unless_the_job_says_otherwise() -> None:
    made = plan(rental=VOLUME)
    assert start(Machine(), plan=made)["env"]["HF_HOME"] == "/workspace/.cache/huggingface"
    own = plan(rental=VOLUME, env={"HF_HOME": "/elsewhere"})
    assert start(Machine(), plan=own)["env"]["HF_HOME"] == "/elsewhere"
    assert "HF_HOME" not in start(Machine())["env"]


# The start


def test_the_agent_starts_with_the_surroundings_of_a_login() -> None:
    machine = Machine()
    start(machine, provider=ScriptedProvider("/etc/rp_environment"))
    command = machine.ran[-1]
    assert command.index("/etc/rp_environment") < command.index("agent.pyz")


def test_a_wiped_box_says_so() -> None:
    with pytest.raises(Wiped):
        start(Machine(wiped=True))


def test_an_agent_that_refuses_is_not_a_wiped_box() -> None:
    class Refuses(Machine):
        def answer(self, command: str, stdin: str) -> tuple[int, str]:
            if "'start'" in command:
                return 1, '{"v": 1, "error": "no"}\n'
            return super().answer(command, stdin)

    with pytest.raises(CommandFailed, match="refused to start: no"):
        start(Refuses())


STOP = SelfStop("POST", "https://api.example/", {"action": "stop"}, "POD_KEY")


def test_the_dead_man_switch_travels_with_the_spec() -> None:
    provider = ScriptedProvider(stop=STOP)
    made = start(Machine(), provider=provider, provider_id="p1", hours_until=NOW)
    assert made["deadman"] == {
        "orphan_s": 3600.0,
        "hours_until": "2026-01-01T00:00:00+00:00",
        "keeps_seals": False,
        "stop": {
            "method": "POST",
            "url": "https://api.example/p1",
            "body": {"action": "stop"},
            "token_variable": "POD_KEY",
        },
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"orphan_s": 3600.0, "hours_until": None, "keeps_seals": False, "stop": None}),
        (
            {"provider": ScriptedProvider(), "provider_id": "p1"},
            {"orphan_s": 3600.0, "hours_until": None, "keeps_seals": False, "stop": None},
        ),
        ({"plan": plan(orphan_s=0.0)}, None),
    ],
    ids=["no provider", "cannot stop", "off"],
)
def test_what_cannot_be_or_is_not_wanted(
    changes: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert start(Machine(), **changes)["deadman"] == expected


RULE = {"glob": "ck_*", "step": r"ck_(\d+)", "required": ["w.pt"], "markers": [], "rank": None}


@pytest.mark.parametrize(
    ("checkpoints", "layout"),
    [
        pytest.param(
            CheckpointPlan("out", "auto", "/m", ResumePlan("", {}, "")), "auto", id="auto"
        ),
        pytest.param(
            CheckpointPlan("out", "verl", "/m", ResumePlan("", {}, "")), "verl", id="name"
        ),
        pytest.param(
            CheckpointPlan("out", "custom", "/m", ResumePlan("", {}, ""), rule=RULE), RULE, id="own"
        ),
    ],
)
def test_the_agent_gets_the_layout_as_the_job_says_it(
    checkpoints: CheckpointPlan, layout: Any
) -> None:
    spec = start(Machine(), plan=plan(checkpoints=checkpoints))
    assert spec["layout"] == layout
    assert layouts_of(spec["layout"]) and spec["resume_at"] is None


def test_a_box_that_pushes_gets_the_keys_as_a_file_and_the_place_last(tmp_path: Path) -> None:
    (tmp_path / "s3.env").write_text("KEY_ID=a\nSECRET=canary\n")
    also = PushPlan("s3://bucket/prefix", "https://s3.example.org", "eu-1")
    machine = Machine(packages={})
    machine.push_python = "/usr/bin/python3"
    made = kit(
        machine,
        folder=tmp_path,
        plan=plan(checkpoints=replace(plan().phases[0].checkpoints, also=also)),
    )
    context = TaskContext(lambda _: None, lambda: False, lambda _: None)
    setup.prepare(context, made, ScriptedProvider(), INSTANCE)  # type: ignore[arg-type]
    names = [name.rpartition("/")[2] for name in machine.files]
    assert names[-2:] == ["s3.env", "push.json"]
    assert machine.files[f".gpujob/{RUN}/s3.env"] == b"KEY_ID=a\nSECRET=canary\n"
    assert json.loads(machine.files[f".gpujob/{RUN}/push.json"]) == {
        "v": 1,
        "also": "s3://bucket/prefix",
        "run": RUN,
        "endpoint_url": "https://s3.example.org",
        "region": "eu-1",
        "python": "/usr/bin/python3",
    }
    assert not any("canary" in each for each in machine.inputs)


# Of which phase


def secrets_of(machine: Machine) -> str:
    return machine.files.get(f".gpujob/{RUN}/secrets.env", b"").decode()


def ladder(*phases: dict[str, Any]) -> Plan:
    made = [plan(**each).phases[0] for each in phases]
    return replace(plan(), secrets=("A", "B"), phases=tuple(made))


def prepare_phase(machine: Machine, made: Plan, index: int, folder: Path) -> None:
    context = TaskContext(lambda _: None, lambda: False, lambda _: None)
    told = kit(machine, plan=made, index=index, folder=folder)
    setup.prepare(context, told, ScriptedProvider(), INSTANCE)  # type: ignore[arg-type]


def test_a_box_gets_the_secrets_of_its_phase_and_keeps_none_of_another(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text("A=1=1\nB=2\n")
    made, machine = ladder({"secrets": ("A",)}, {"secrets": ("B", "A")}, {}), Machine()
    prepare_phase(machine, made, 0, tmp_path)
    assert secrets_of(machine) == "A=1=1\n"
    prepare_phase(machine, made, 1, tmp_path)
    assert secrets_of(machine) == "A=1=1\nB=2\n"
    prepare_phase(machine, made, 2, tmp_path)
    assert any(f"rm -f .gpujob/{RUN}/secrets.env" in each for each in machine.ran)
    specs = [start(machine, plan=made, index=index)["secrets"] for index in range(3)]
    assert specs == [True, True, False]


def code(*names: str) -> Upload:
    files = tuple(FileEntry(name, 1, "0" * 64, ("0" * 64,)) for name in names)
    tree = Manifest(files)
    return Upload("code", "/src", ".", len(files), len(files), tree.digest, tree.to_json())


def test_what_only_another_phases_code_holds_is_not_left_on_a_kept_box(tmp_path: Path) -> None:
    """One checkout laid over another would leave modules that the second has not."""
    (tmp_path / "secrets.env").write_text("")
    made = ladder({"uploads": (code("train.py", "old.py"),)}, {"uploads": (code("train.py"),)})
    machine = Machine()
    prepare_phase(machine, made, 1, tmp_path)
    removed = machine.inputs[machine.index("xargs -0 rm -f")]
    assert removed.endswith("\nold.py")
    assert machine.index("push gpujob") < machine.index("xargs -0 rm -f")
    other = Machine()
    prepare_phase(other, made, 0, tmp_path)
    assert not any("xargs" in each for each in other.ran)
