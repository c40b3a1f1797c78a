"""What a box needs before it can train: looked for, and put there where that is possible.

Only standard output is read: a box may say anything on the other one before each command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.commands import agent_root, work_folder
from orchestrator.core.offer import Rental
from orchestrator.errors import CommandFailed, Missing, Unusable
from orchestrator.ports import Completed, Shell
from remote.contract import shell_words

INSTALL_TIMEOUT_S = 600.0
PACKAGES_TIMEOUT_S = 3600.0
PACKAGES_TRIES = 2
NO_VOLUME = 41
ON_VOLUME = ("pins", "seals", "incoming")

# As root, or with a sudo that asks nobody. The lists first: images come without them.
_ADD_TMUX = """if [ "$(id -u)" = 0 ]; then as=; else as="sudo -n"; fi
$as apt-get update >&2 &&
$as env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tmux >&2"""

_LINK = """umask 077
if ! [ -d {volume} ] || ! [ -w {volume} ]; then exit {no_volume}; fi
place() {{
  mkdir -p -- "$1" "$(dirname -- "$2")" || exit 1
  if [ -d "$2" ] && ! [ -L "$2" ]; then rmdir -- "$2" || exit 1; fi
  ln -sfn -- "$1" "$2" || exit 1
}}
"""

PUSH_NEED = "boto3>=1.36,<2"
_PUSH_PROBE = """import json, sys
try:
    import boto3
    fits = tuple(map(int, boto3.__version__.split(".")[:2])) >= (1, 36)
except Exception:
    fits = False
print(json.dumps({"python": sys.executable, "boto3": fits}))
"""
# Its own environment: what it needs must not change what the trainer imports. A distribution's
# Python may lack ensurepip, and then the pip beside it serves.
_PUSH_VENV = """exec >&2
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if ! [ -x {venv}/bin/python ]; then
  python3 -m venv {venv} || {{ rm -rf -- {venv}; python3 -m venv --without-pip {venv}; }} || exit 1
fi
{venv}/bin/python -m pip install {need} ||
  python3 -m pip --python {venv}/bin/python install {need}
"""

_PROBE = """import importlib.metadata, importlib.util, json
def look(name):
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
print(json.dumps({{name: look(name) for name in {names!r}}}))
"""


def login(file: str) -> str:
    """Shell text before a command that makes its surroundings those of a login: what the box
    keeps in `file`, which a plain ssh command does not read, and what pip puts in the home folder.

    Standard output stays clean, and the home folder ssh's: it is where all paths begin."""
    own_path = 'export PATH="$PATH:$HOME/.local/bin"; '
    if not file:
        return own_path
    path = shell_words([file])
    source = f'gpujob_home=$HOME; . {path} >/dev/null 2>&1; export HOME="$gpujob_home"; cd'
    return f"if [ -r {path} ]; then {source}; fi; {own_path}"


def check_gpus(shell: Shell, login: str, count: int) -> None:
    """Raises Unusable when the box shows fewer GPUs than were rented."""
    done = shell.run(f"{login}nvidia-smi -L", check=False)
    shown = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    if shown < count:
        raise Unusable(f"the box shows {shown} of {count} GPUs")


def check_tools(shell: Shell, login: str) -> None:
    """Raises Missing without Python 3.9 or tmux; tmux is installed where that is allowed.

    Python is needed without a login too: transfers start the agent by a plain command."""
    need = 'python3 -c "import sys; sys.exit(sys.version_info < (3, 9))"'
    if not (_runs(shell, need) and _runs(shell, f"{login}{need}")):
        raise Missing(
            "the box has no Python 3.9 or newer, which the agent needs",
            hint="choose an image that has python3",
        )
    if _runs(shell, f"{login}tmux -V"):
        return
    tried = shell.run("sh -s", stdin=_ADD_TMUX.encode(), timeout_s=INSTALL_TIMEOUT_S, check=False)
    if not _runs(shell, f"{login}tmux -V"):
        raise Missing(
            "the box has no tmux, in which the trainer runs, and apt-get could not install it: "
            f"{_last_words(tried)}",
            hint="choose an image that has tmux",
        )


def link_volume(shell: Shell, run: str, rental: Rental) -> None:
    """Let the run's work folder, pins and seals be on the rented volume, so that they outlive the
    box. Raises Unusable when it is not there. Repeatable.

    What is addressed as a socket, locked or secret stays on the box's own disk."""
    volume = rental.volume_path
    there, root = f"{volume}/gpujob/{run}", agent_root(run)
    pairs = [(f"{there}/work", work_folder(run))]
    pairs += [(f"{there}/{name}", f"{root}/{name}") for name in ON_VOLUME]
    script = _LINK.format(volume=shell_words([volume]), no_volume=NO_VOLUME)
    script += "".join(f"place {shell_words(pair)}\n" for pair in pairs)
    done = shell.run("sh -s", stdin=script.encode(), check=False)
    if done.rc == NO_VOLUME:
        raise Unusable(f"the box has no volume at {volume} that it may write to")
    if done.rc != 0:
        raise CommandFailed(f"the volume at {volume} could not be used: {_last_words(done)}", 1)


def volume_env(rental: Rental) -> dict[str, str]:
    """Models are fetched once a volume and not once a box, unless the job says otherwise."""
    return {"HF_HOME": f"{rental.volume_path}/.cache/huggingface"} if rental.volume else {}


@dataclass(frozen=True)
class Requirement:
    """One line of a requirements file: `name>=1.2,<2`."""

    line: str

    @property
    def name(self) -> str:
        return re.split(r"[<>=]", self.line)[0]

    def accepts(self, version: str) -> bool:
        """Whether an installed version is in the range; one that is not known is."""
        found = _numbers(version)
        bounds = re.findall(r"(>=|<)([\d.]+)", self.line)
        return not found or all(
            (found >= _numbers(bound)) == (sign == ">=") for sign, bound in bounds
        )


def requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def add_packages(shell: Shell, login: str, needed: Iterable[Requirement], folder: str) -> None:
    """Install what is missing of `needed` for the box's python3; a torch that is there fits the
    box's driver and stays as it is. `folder` is where a file may be put.

    Into the interpreter itself: the box is ours alone and thrown away, a distribution's Python may
    lack venv, and images whose python3 is managed by the distribution (PEP 668) let themselves
    be told by this variable, which an old pip ignores where an unknown option would end it.
    Raises Missing, CommandFailed."""
    known = {each.name: each for each in needed}
    found = _versions(shell, login, known)
    wanted = _unfit(known, found)
    if not wanted:
        return
    torch = found.get("torch")
    if torch is not None and known["torch"] in wanted:
        raise Missing(
            f"the box has torch {torch}, and the trainer needs {known['torch'].line}",
            hint="choose another image in `resources.image`",
        )
    keep = f"torch=={torch}\n" if torch and re.fullmatch(r"[\w.+!]+", torch) else ""
    shell.put(keep.encode(), f"{folder}/constraints.txt")
    done = _pip_install(shell, login, wanted, f"{folder}/constraints.txt")
    left = _unfit(known, _versions(shell, login, known)) if done.rc == 0 else wanted
    if left:
        names = ", ".join(each.line for each in left)
        said = _last_words(done)
        raise CommandFailed(f"pip could not install {names} on the box: {said}", done.rc or 1, said)


def push_python(shell: Shell, login: str, folder: str) -> str:
    """The path of a Python on the box that has boto3: its own when that has it, else that of a
    virtual environment below `folder`, made now. Raises CommandFailed. Repeatable."""
    found = _push_probe(shell, f"{login}python3 -")
    if found:
        return found
    venv = shell_words([f"{folder}/push"])
    script = _PUSH_VENV.format(venv=venv, need=shell_words([PUSH_NEED]))
    done = Completed(1, "", "")
    for _ in range(PACKAGES_TRIES):
        stdin = f"{login}\n{script}".encode()
        done = shell.run("sh -s", stdin=stdin, timeout_s=PACKAGES_TIMEOUT_S, check=False)
        found = _push_probe(shell, f"{venv}/bin/python -") if done.rc == 0 else None
        if found:
            return found
    said = _last_words(done)
    raise CommandFailed(f"pip could not install boto3 on the box: {said}", done.rc or 1, said)


def _push_probe(shell: Shell, python: str) -> str | None:
    done = shell.run(python, stdin=_PUSH_PROBE.encode(), check=False)
    try:
        said = json.loads(done.stdout.strip().split("\n")[-1])
    except ValueError:
        return None
    fits = isinstance(said, dict) and said.get("boto3") is True
    return str(said["python"]) if fits else None


def _pip_install(
    shell: Shell, login: str, wanted: list[Requirement], constraints: str
) -> Completed:
    """Again after a failure: an index may be out for a moment."""
    settings = "PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1"
    words = ["python3", "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
    command = f"{login}{settings} {shell_words([*words, *(each.line for each in wanted)])} >&2"
    done = Completed(1, "", "")
    for _ in range(PACKAGES_TRIES):
        done = shell.run(command, timeout_s=PACKAGES_TIMEOUT_S, check=False)
        if done.rc == 0:
            break
    return done


def _versions(shell: Shell, login: str, names: Iterable[str]) -> Mapping[str, str | None]:
    probe = _PROBE.format(names=list(names))
    done = shell.run(f"{login}python3 -", stdin=probe.encode())
    try:
        said = json.loads(done.stdout.strip().split("\n")[-1])
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise CommandFailed("the box's python3 did not say which packages it has", 1)
    return {str(name): None if text is None else str(text) for name, text in said.items()}


def _unfit(known: Mapping[str, Requirement], found: Mapping[str, str | None]) -> list[Requirement]:
    return [
        each
        for name, each in known.items()
        if (version := found.get(name)) is None or not each.accepts(version)
    ]


def _numbers(version: str) -> list[int]:
    """Release numbers, without zeros at the end: 2.0 is 2."""
    release = re.match(r"[\d.]*", version)
    found = [int(each) for each in re.findall(r"\d+", release[0] if release else "")]
    while found and found[-1] == 0:
        found.pop()
    return found


def _runs(shell: Shell, command: str) -> bool:
    return shell.run(command, check=False).rc == 0


def _last_words(done: Completed) -> str:
    return (done.stderr or done.stdout).strip()[-500:] or "it said nothing"
