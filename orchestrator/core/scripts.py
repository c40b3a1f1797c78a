"""A shell script that trains, read as a job: its launcher, GPUs, checkpoints, and how to resume.

Text is read and nothing is run. What cannot be carried over is told in `notes`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.rehearsal.edits import OUTPUT
from orchestrator.core.rehearsal.families import TRAINS, started_by
from orchestrator.core.rehearsal.sources import entries
from orchestrator.core.script_notes import left_out, needed_values, other_places
from orchestrator.core.spec.tokens import names_secret

Launcher = str
MOST_BYTES = 2**20
# The launcher's own word for how many GPUs there are.
_GPUS = {
    "deepspeed": r"(?P<key>--num_gpus)(?P<gap>[= ]+)(?P<count>[^\s\\]+)",
    "torchrun": r"(?P<key>--nproc[_-]per[_-]node)(?P<gap>[= ]+)(?P<count>[^\s\\]+)",
    "accelerate": r"(?P<key>--num_processes)(?P<gap>[= ]+)(?P<count>[^\s\\]+)",
    "verl": r"(?P<key>trainer\.n_gpus_per_node)(?P<gap>=)(?P<count>[^\s\\]+)",
}
_STARTS = (
    ("verl", re.compile(r"\bpython3?\s+(?:-u\s+)?-m\s+verl\.\S+|main_ppo")),
    ("accelerate", re.compile(r"\baccelerate\s+launch\b")),
    ("deepspeed", re.compile(r"(?:^|[\s;&])deepspeed\s")),
    ("torchrun", re.compile(r"\btorchrun\b|-m\s+torch\.distributed\.(?:run|launch)")),
    ("python", re.compile(r"(?:^|[\s;&])python3?\s+(?:-u\s+)?(?:-m\s+\S+|\S+\.py)")),
)
_RESUME = {
    "verl": "trainer.resume_mode=resume_path trainer.resume_from_path={checkpoint}",
    # Its YAML form reads `--name=value` alone.
    "open-instruct": "--resume_from_checkpoint={checkpoint}",
    "torchllms": "",
    "huggingface": "--resume_from_checkpoint {checkpoint}",
}
_EXPORT = re.compile(r"^\s*export\s+(?P<pairs>.+)$")
_PAIR = re.compile(r"([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&]*)")
_ASSIGN = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&]*)\s*(?:#.*)?$")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)")
_TAIL = re.compile(r"\s*(?:2>&1\s*)?(?:\|\s*tee\s+(?:-a\s+)?\S+|&?>>?\s*\S+)?(?:\s*2>&1)?\s*&?\s*$")
_FRONT = re.compile(r"^\s*(?:(?:nohup|exec|time|srun(?:\s+-\S+)*)\s+)+")
_BEFORE = re.compile(r"^\s*([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&]*)\s+(?=\S)")
_ARGUMENTS = re.compile(r"\s*[\"']?\$(?:@|\*|\{@[^}]*\})[\"']?")


@dataclass(frozen=True)
class Script:
    """`command` holds {gpus} and, where the trainer can resume, {resume}. `notes` say what was left
    out or has to be looked at."""

    launcher: Launcher
    command: str
    gpus: int | None = None
    output: str = ""
    layout: str = "huggingface"
    resume: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_script(text: str) -> Script | None:
    """None when nothing in it starts a trainer that is known."""
    lines = list(_lines(text))
    values = _values(lines)
    found = _start(lines)
    if found is None:
        return None
    launcher, line = found
    command = _ARGUMENTS.sub("", _TAIL.sub("", _expanded(line, values)))
    before, command = _before(_FRONT.sub("", command))
    layout = started_by(command) or "huggingface"
    script = Script(launcher, command, layout=layout, resume=_RESUME.get(layout, ""))
    script = _with_gpus(script, lines)
    script = _with_output(script)
    script = _with_surroundings(script, [*lines, *before], values)
    script = _with_resume(script)
    others = [each for each in lines if each is not line]
    told = (
        *other_places(script.command),
        *needed_values(script.command, script.env, script.secrets),
    )
    return replace(script, notes=(*script.notes, *told, *left_out(others)))


def _before(command: str) -> tuple[list[str], str]:
    """`NAME=value` before a command, as if each were exported, and the command."""
    found = []
    while match := _BEFORE.match(command):
        found.append(f"export {match[0].strip()}")
        command = command[match.end() :]
    return found, _FRONT.sub("", command)


def _lines(text: str) -> Iterator[str]:
    """Logical lines: continued ones joined, comments left out."""
    for line in re.sub(r"\s*\\\r?\n\s*", " ", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _values(lines: list[str]) -> dict[str, str]:
    """The script's own variables, where their value is a plain word and no secret."""
    found: dict[str, str] = {}
    for line in lines:
        match = _ASSIGN.match(line)
        if match and not re.search(r"\$\(|`", match[2]) and not names_secret(match[1]):
            found[match[1]] = _expanded(match[2].strip("'\""), found)
    return found


def _expanded(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        if name in values:
            return values[name]
        return match[2] if match[2] is not None else match[0]

    return _VARIABLE.sub(value, text)


def _start(lines: list[str]) -> tuple[Launcher, str] | None:
    """The line that trains: by the most telling launcher, of several by what its program is called,
    and of those the last one."""
    for launcher, sign in _STARTS:
        found = [line for line in lines if sign.search(line) and "pip install" not in line]
        if found:
            return launcher, ([line for line in found if _trains(line)] or found)[-1]
    return None


def _trains(line: str) -> bool:
    return any(TRAINS.search(program.rsplit("/", 1)[-1]) for program in entries(line))


def _with_gpus(script: Script, lines: list[str]) -> Script:
    pattern = _GPUS.get(script.launcher)
    match = re.search(pattern, script.command) if pattern else None
    count = int(match["count"]) if match and match["count"].isdigit() else None
    if pattern and match:
        told = re.sub(pattern, r"\g<key>\g<gap>{gpus}", script.command)
        script = replace(script, command=told)
    count = count or _visible([*lines, script.command])
    if count is None and script.launcher != "python":
        note = "resources.gpu: the script does not say how many GPUs; 1 is a guess"
        return replace(script, notes=(*script.notes, note))
    return replace(script, gpus=count)


def _visible(lines: list[str]) -> int | None:
    for line in lines:
        match = re.search(r"CUDA_VISIBLE_DEVICES=[\"']?([\d,]+)", line)
        if match:
            return len(match[1].strip(",").split(","))
    return None


def _with_output(script: Script) -> Script:
    told = _told_output(script.command)
    if told is None:
        note = "checkpoints.path: the command does not say where it saves; correct `path`"
        return replace(script, output="output", notes=(*script.notes, note))
    told = told.rstrip("/")
    if not told.startswith(("/", "~", "$")) and "$" not in told:
        return replace(script, output=told.removeprefix("./"))
    plain = re.sub(r"\$\{?\w+\}?|\$\(.*", "", told.rsplit("/", 1)[-1]).strip("/~") or "output"
    note = f"checkpoints.path: {told} became {plain}; outside the work folder nothing is kept"
    command = script.command.replace(told, plain)
    return replace(script, output=plain, command=command, notes=(*script.notes, note))


def _told_output(command: str) -> str | None:
    """The value of the setting that names the folder, in one word or two."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.lstrip("-+").rsplit(".", 1)[-1].replace("-", "_") in OUTPUT and (equals or after):
            return value if equals else after
    return None


def _with_surroundings(script: Script, lines: list[str], values: Mapping[str, str]) -> Script:
    """What is exported becomes env or, by its name, a secret whose value stays where it is."""
    env: dict[str, str] = {}
    secrets: list[str] = []
    setup: list[str] = []
    notes = list(script.notes)
    for line in lines:
        exported = _EXPORT.match(line)
        if exported:
            for name, value in _PAIR.findall(exported["pairs"]):
                if names_secret(name):
                    secrets.append(name)
                elif name != "CUDA_VISIBLE_DEVICES":
                    env[name] = _expanded(value.strip("'\""), values)
        elif re.match(r"(?:python3? -m )?(?:uv )?pip3?\s+install\b", line):
            setup.append(line)
        elif re.search(r"\bactivate\b", line):
            notes.append("the virtual environment is left out: `setup` installs into the box's own")
    said = " ".join([*lines, script.command])
    secrets += [name for name in re.findall(r"\$\{?(\w+)\}?", said) if names_secret(name)]
    for name in [each for each, value in env.items() if re.search(r"[$`]", value)]:
        del env[name]
        notes.append(f"env: {name} is left out: its value is made where the script runs")
    wanted = tuple(dict.fromkeys(secrets))
    return replace(script, env=env, secrets=wanted, setup=tuple(setup), notes=tuple(notes))


def _with_resume(script: Script) -> Script:
    """The script's own flag for it, where it has one, gives way to {resume}."""
    notes = list(script.notes)
    flag = re.compile(
        r"\s+(--resume[_-]from[_-]checkpoint|trainer\.resume_from_path|trainer\.resume_mode)"
        r"(?:[= ](?!-)\S+)?"
    )
    own = flag.search(script.command)
    command = flag.sub("", script.command)
    if not script.resume:
        notes.append(f"{script.layout} saves no optimizer: a lost box begins anew")
        return replace(script, command=command, notes=tuple(notes))
    if own and own[1] == "--resume-from-checkpoint":
        script = replace(script, resume="--resume-from-checkpoint {checkpoint}")
    if not own and not started_by(command):
        notes.append(
            f"checkpoints: layout {script.layout} and {script.resume.split()[0]} are guesses"
        )
    if script.layout == "open-instruct" and "do_not_randomize_output_dir" not in command:
        command += " --do_not_randomize_output_dir=true"
        notes.append("do_not_randomize_output_dir was added: else each start is a new folder")
    return replace(script, command=f"{command} {{resume}}", notes=tuple(notes))
