"""Makes one box: its keys, its sshd's configuration, and the processes around it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.adapters.local import supervisor
from orchestrator.adapters.local.folder import Folder, Record
from orchestrator.errors import Missing, Transient

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APT = "sudo apt-get install openssh-server openssh-client tmux"

# The shell becomes the box's one process; what it writes of itself is how the box is known.
# Standard input is the folder's lock: held until the identity is on record, then let go.
OUTER = """
folder=$1; shift
{ cat /proc/sys/kernel/random/boot_id; cat "/proc/$$/stat"; } >"$folder/identity.new" || exit 1
mv "$folder/identity.new" "$folder/identity" || exit 1
exec "$@" </dev/null
"""

# Runs as pid 1 of the namespace. A private /dev/shm dies with the box, as a rented one's would.
# The folder etc is there when the box was given an /etc of its own.
# Not root outside, we are root in here while we mount and ourselves again for sshd, which then
# cannot give a terminal to the group tty (unmapped) and must not find that there is one.
INNER = """
folder=$1 private=$2 user=$3 group=$4; shift 4
{ readlink /proc/self/ns/pid; cat /proc/1/stat; } >"$folder/namespace.new" || exit 1
mv "$folder/namespace.new" "$folder/namespace" || exit 1
mount -t tmpfs none /dev/shm || exit 1
if [ "$private" = yes ]; then mount -t tmpfs -o mode=0700 none "$folder/home" || exit 1; fi
if [ -d "$folder/etc" ]; then mount --bind "$folder/etc" /etc || exit 1; fi
if [ "$user" = 0 ]; then exec "$@"; fi
grep -v ^tty: /etc/group >"$folder/sshd/group"
mount --bind "$folder/sshd/group" /etc/group || exit 1
exec unshare --user --map-user="$user" --map-group="$group" "$@"
"""
ROOT = ("--pid", "--fork", "--kill-child", "--mount-proc")
NOT_ROOT = ("--user", "--map-root-user", *ROOT)


NEEDED = ("sshd", "ssh-keygen", "ssh", "tmux", "bash")


@dataclass(frozen=True)
class Tools:
    """Programs of this machine that a box is made of."""

    sshd: str
    keygen: str


@dataclass(frozen=True)
class Extras:
    """What makes a box look like a vendor's, in a namespace: `etc` are files that it sees in its
    copy of /etc (a login name, say), `path_first` is a folder before all others in its PATH."""

    etc: Mapping[str, bytes] = field(default_factory=dict)
    path_first: Path | None = None


PLAIN = Extras()


def find_tools(path: str | None = None) -> Tools:
    """Look in `path`, else in PATH and where sshd usually is. Raises Missing with the package."""
    path = path or os.environ.get("PATH", "") + ":" + SYSTEM_PATH
    found = {name: shutil.which(name, path=path) for name in NEEDED}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        raise Missing(
            f"{', '.join(missing)} not installed; a local instance is a private OpenSSH server on "
            "this machine, and the trainer runs in tmux. Nothing was rented.",
            hint=APT,
        )
    return Tools(found["sshd"] or "", found["ssh-keygen"] or "")


@cache
def has_namespaces() -> bool:
    """Whether this machine lets us open a pid namespace and mount in it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "sshd").mkdir()
        command = _inside(Folder(Path(folder)), ["true"], private_home=False)
        try:
            probe = subprocess.run(command, capture_output=True, timeout=10)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return False
        return probe.returncode == 0


def write_keys(folder: Folder, tools: Tools, public_key: str) -> None:
    """A host key of its own, and the one key that may enter."""
    folder.sshd.mkdir(mode=0o700)
    command = [tools.keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
    made = subprocess.run([*command, str(folder.sshd / "host_key")], capture_output=True)
    if made.returncode != 0:
        raise Transient(f"ssh-keygen failed: {made.stderr.decode(errors='replace').strip()}")
    _write(folder.sshd / "authorized_keys", public_key.strip() + "\n", 0o600)


def write_files(folder: Folder, final: Folder, record: Record, extras: Extras = PLAIN) -> None:
    """The configuration but for its port, and the script that every session enters by.

    `final` is where the folder will be when it is used."""
    folder.home.mkdir(mode=0o700)
    if extras.etc:
        _copy_etc(folder.path / "etc", extras.etc)
    _write(folder.sshd / "enter", _enter(final, extras.path_first), 0o700)
    _write(folder.sshd / "config", _config(final, record), 0o600)


def start(folder: Folder, record: Record, *, lock: int, sshd: str, private_home: bool) -> None:
    """Start the box apart from this process: other session, other parent, nothing inherited."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root refuses to run without
    (folder.path / "identity").unlink(missing_ok=True)
    server = [sshd, "-D", "-e", "-f", str(folder.sshd / "config"), "-p", str(record.port)]
    command = (
        _inside(folder, server, private_home=private_home)
        if record.isolation == "namespace"
        else _supervised(server)
    )
    with folder.log.open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", OUTER, "gpujob-box", str(folder.path), *command],
            stdin=lock,
            stdout=log,
            stderr=log,
            env={"PATH": SYSTEM_PATH},
            cwd="/",
            check=True,
        )


def _inside(folder: Folder, command: list[str], *, private_home: bool) -> list[str]:
    flags = NOT_ROOT if os.geteuid() else ROOT
    private = "yes" if private_home else "no"
    identity = [str(os.geteuid()), str(os.getegid())]
    return [
        "unshare",
        *flags,
        "sh",
        "-c",
        INNER,
        "box",
        str(folder.path),
        private,
        *identity,
        *command,
    ]


def _supervised(command: list[str]) -> list[str]:
    return [sys.executable, "-I", "-S", supervisor.__file__, *command]


def _copy_etc(into: Path, changed: Mapping[str, bytes]) -> None:
    """This machine's /etc but for what we may not read, which a box has no use for."""
    with suppress(shutil.Error):
        shutil.copytree("/etc", into, symlinks=True)
    for name, content in changed.items():
        (into / name).unlink(missing_ok=True)
        (into / name).write_bytes(content)


def _enter(folder: Folder, path_first: Path | None) -> str:
    """sshd starts every session in the account's real home: this moves it to the box's.

    SHLVL keeps bash from reading rc files because it finds itself under sshd; a temporary folder
    below home keeps what a killed trainer leaves from outliving its box."""
    path = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
    if path_first:
        path = f"{path_first}:{path}"
    return f"""#!/bin/sh
HOME={shlex.quote(str(folder.home))} PATH={shlex.quote(path)}
TMPDIR=$HOME/.tmp LANG=C.UTF-8 SHELL=/bin/bash SHLVL=2
export HOME PATH TMPDIR LANG SHELL SHLVL
umask 077
mkdir -p "$TMPDIR" && cd "$HOME" || exit 1
if [ -z "${{SSH_ORIGINAL_COMMAND+x}}" ]; then exec bash -i; fi
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND OLDPWD MAIL
exec bash -c "$command"
"""


def _config(folder: Folder, record: Record) -> str:
    """StrictModes is off because the folder (0700, ours) may lie below a shared one like /tmp."""
    sshd = folder.sshd
    return f"""ListenAddress 127.0.0.1
HostKey {_quoted(sshd / "host_key")}
AuthorizedKeysFile {_quoted(sshd / "authorized_keys", percent="%%")}
AllowUsers {record.user}
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PermitUserEnvironment no
PermitUserRC no
AllowAgentForwarding no
X11Forwarding no
AllowStreamLocalForwarding no
GatewayPorts no
UseDNS no
PrintMotd no
PrintLastLog no
PidFile none
LoginGraceTime 30
MaxStartups 100
MaxSessions 100
ClientAliveInterval 15
ClientAliveCountMax 4
SetEnv HOME={_quoted(folder.home)} {record.marker}
ForceCommand {shlex.quote(str(sshd / "enter"))}
"""


def _quoted(path: Path, percent: str = "%") -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", percent)
    return f'"{text}"'


def _write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=mode)
    path.write_text(text)
