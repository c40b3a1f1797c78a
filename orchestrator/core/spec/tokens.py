"""What a secret looks like, so that one in a job file is refused and never shown."""

from __future__ import annotations

import re

# The published prefixes of access tokens that end up in training scripts. Every repetition is
# bounded and every open start is anchored: a file of 1 MB must not take minutes.
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{16}"  # Hugging Face
    r"|(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16}"  # OpenAI, Anthropic
    r"|gh[pousr]_[A-Za-z0-9]{20}|github_pat_\w{20}"  # GitHub
    r"|glpat-[\w-]{16}"  # GitLab
    r"|rpa_[A-Z0-9]{16}"  # RunPod
    r"|(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"  # AWS key id
    r"|AIza[\w-]{30}"  # Google
    r"|xox[abeprs]-[A-Za-z0-9-]{10}"  # Slack
    r"|wandb_v\d_[\w-]{20}"  # Weights & Biases
    r"|(?<![\w-])eyJ[\w-]{10,2000}\.eyJ[\w-]{10}"  # JSON Web Token
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://[^/\s:@]{1,200}:[^/\s@$]{1,200}@"  # a password
)
# Weights & Biases keys are bare 40-digit hex, like a commit: only an assignment tells them apart.
_ASSIGNED = re.compile(
    r"(?:TOKEN|API_?KEY|SECRET|SECRET_KEY|PASSWORD|PASSWD)\s{0,4}=\s{0,4}['\"]?"
    r"(?:[0-9a-f]{32}|[A-Za-z0-9+/]{40})"
)
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|API_?KEY|SECRET|SECRET_KEY|ACCESS_KEY|PRIVATE_KEY|PASSWORD|PASSWD)$", re.I
)


def holds_token(text: str) -> bool:
    """Whether a known token, private key or password in an address stands in `text`."""
    return bool(_SHAPES.search(text) or _ASSIGNED.search(text))


def names_secret(variable: str) -> bool:
    """Whether an environment variable of this name is expected to hold a secret."""
    return bool(_SECRET_NAME.search(variable))


def show(text: str) -> str:
    """`text` quoted for a message: shortened, and never when it could be a secret."""
    if holds_token(text):
        return "(hidden: it looks like a secret)"
    return repr(text if len(text) <= 60 else text[:57] + "...")
