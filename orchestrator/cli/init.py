"""`gpujob init`: a job file from a template, or from a script that trains already."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestrator.cli.home import tell
from orchestrator.core.jobtext import job_name, job_text
from orchestrator.core.scripts import MOST_BYTES, Script, read_script
from orchestrator.core.spec import parse_job
from orchestrator.core.spec.tokens import holds_token
from orchestrator.errors import BadJobFile, NotFound

TEMPLATES = Path(__file__).parents[1] / "templates"
NAMES = tuple(sorted(path.stem for path in TEMPLATES.glob("*.yaml")))


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("job.yaml"))
@click.option("--template", type=click.Choice(NAMES), help="Begin with one of these.")
@click.option(
    "--from",
    "script",
    type=click.Path(path_type=Path),
    metavar="SCRIPT",
    help="A shell script of yours that trains: deepspeed, torchrun, accelerate, verl, python.",
)
def command(file: Path, template: str | None, script: Path | None) -> None:
    """Write a job file to FILE (default job.yaml).

    From a script it takes the launcher, the number of GPUs, the folder and layout of checkpoints,
    how to resume, what is exported and what is installed. No value of a secret is copied. A file
    that is there is not overwritten.
    """
    if script is not None and template is not None:
        raise BadJobFile("--template and --from exclude each other; nothing was written")
    text = _from_script(script, file) if script else _template(template or "command")
    parse_job(text.encode(), file=str(file), base=file.absolute().parent)
    _write(file, text)
    click.echo(f"wrote {file}")
    click.echo(f"hint: look it over, then `gpujob rehearse {file}` tries it here for nothing")


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")


def _from_script(path: Path, file: Path) -> str:
    """Raises NotFound, BadJobFile."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}; nothing was written")
    with path.open("rb") as opened:
        script = read_script(opened.read(MOST_BYTES).decode(errors="replace"))
    if script is None:
        raise BadJobFile(
            f"{path} starts no trainer that is known; nothing was written",
            hint="`gpujob init --template command` has a place for any command",
        )
    if holds_token(script.command):
        raise BadJobFile(
            f"the command in {path} holds what looks like a secret; nothing was written",
            hint="export it there, and write $NAME in the command: the job file lists the name",
        )
    _tell(script)
    name = job_name(path.absolute().parent.name if path.stem in ("train", "run") else path.stem)
    return job_text(script, name, path.name)


def _tell(script: Script) -> None:
    found = [f"{script.launcher}", f"layout {script.layout}", f"checkpoints in {script.output}"]
    if script.gpus:
        found.append(f"{script.gpus} GPUs")
    tell(f"found: {', '.join(found)}")
    for note in script.notes:
        tell(f"note: {note}")


def _write(file: Path, text: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise BadJobFile(
            f"{file} is there already; nothing was written", hint="name another file, or move it"
        ) from None
    except OSError as error:
        raise BadJobFile(f"{file} cannot be written: {error}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
