"""What a job file made from a script does not carry over, said so that a person can mend it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.core.spec.tokens import holds_token

# Lines that only prepare a shell, or that became a key of their own.
_CARRIED = re.compile(
    r"export\s|set\s|echo\b|mkdir\b|[A-Za-z_]\w*=|(?:source|\.)\s+\S*activate|"
    r"(?:python3? -m )?(?:uv )?pip3?\s+install\b"
)
_CONTROL = re.compile(
    r"(?:if|then|else|elif|fi|for|while|until|do|done|case|esac|function)\b|[\w|*-]+\)|[{}]|;;"
)
_FOLDER = re.compile(r"(?:cd|pushd)\s+(\S+)")
_VARIABLE = re.compile(r"\$\{?(\w+)")
_PLACE = re.compile(r"(?:^|[\s=:'\"])(/[\w.-]+(?:/[\w.-]+)+|~/\S+)")
# Every shell, and every box of gpujob's, has these.
_KNOWN = ("HOME", "PWD", "PATH", "USER", "HOSTNAME", "RANDOM")
MOST = 3


def needed_values(command: str, env: Mapping[str, str], secrets: Collection[str]) -> Iterator[str]:
    """What the command takes from its caller, who is not there on a box."""
    names = dict.fromkeys(_VARIABLE.findall(command))
    absent = [name for name in names if name not in {*env, *secrets, *_KNOWN}]
    if absent:
        told = ", ".join(f"${name}" for name in absent)
        yield f"run: nothing sets {told}; give each a value in `env`, or write it into the command"


def other_places(command: str) -> Iterator[str]:
    """Files of the machine that the script was written for."""
    found = [each for each in dict.fromkeys(_PLACE.findall(command)) if "/bin/" not in each]
    for path in found[:MOST]:
        yield (
            f"run: {path} is a place of another machine; let `data` bring it, and name it by its"
            " place in the work folder"
        )


def left_out(lines: Sequence[str]) -> Iterator[str]:
    """The script's other commands, by their first words; a value may be a secret."""
    for folder in [match[1] for line in lines if (match := _FOLDER.match(line))][:1]:
        yield f"code.path: the script works in {folder}; name that folder, as it is called here"
    if any(_CONTROL.match(line) for line in lines):
        yield "loops and conditions are left out: the training command alone was taken"
    known = (_CARRIED, _CONTROL, _FOLDER)
    rest = [line for line in lines if not any(sign.match(line) for sign in known)]
    told = [_first_words(line) for line in rest[:MOST]]
    if told:
        more = f" and {len(rest) - MOST} more" if len(rest) > MOST else ""
        yield f"left out: {', '.join(told)}{more}; what training needs of it belongs into `setup`"


def _first_words(line: str) -> str:
    words = [word for word in line.split() if "=" not in word and not holds_token(word)]
    return " ".join(words[:2])
