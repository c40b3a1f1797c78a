"""A secret in a job file is refused wherever it stands, and its value is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.spec import Job, JobFileError, parse_job
from orchestrator.core.spec.tokens import holds_token

SMALL = """\
name: demo
run: python train.py
checkpoints: {path: output}
"""


def job(text: str, *overrides: str) -> Job:
    return parse_job(text.encode(), file="f.yaml", base=Path("folder"), overrides=overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        job(text, *overrides)
    assert str(caught.value)
    return [str(problem) for problem in caught.value.problems]


HF = "hf_" + "q" * 34
WANDB = "0123456789abcdef" * 2 + "01234567"
SECRETS = {
    "token in env": f"env: {{A: {HF}}}",
    "token with a telling name": f"env: {{HF_TOKEN: {HF}}}",
    "secret by its name": f"env: {{WANDB_API_KEY: {WANDB}}}",
    "name=value": f"secrets: [HF_TOKEN={HF}]",
    "short name=value": "secrets: [DB_PASSWORD=qqqqqqqq]",
    "a token as a name": f"secrets: [{HF}]",
    "in the setup": f"setup: export HF_TOKEN={HF}",
    "hex in the setup": f"setup: export WANDB_API_KEY={WANDB}",
    "in a mapping where a list belongs": f"secrets: {{HF_TOKEN: {HF}}}",
    "as a key": f"env: {{{HF}: x}}",
    "as an unknown key": f"{HF}: x",
    "where a word is expected": f"resources: {{order: {HF}}}",
    "as a gpu": f"resources: {{gpu: {HF}}}",
    "as a second name": f"name: {HF}",
    "in resume.env": f"checkpoints: {{path: a, resume: {{env: {{API_KEY: {WANDB}}}}}}}",
    "in an address": "notify: ['https://me:qqqqqqqq@example.org']",
    "in a tag": f"setup: !{HF} x",
    "in an alias": f"setup: *{HF}",
}


@pytest.mark.parametrize("line", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_refused_and_never_shown(line: str) -> None:
    found = "\n".join(problems(SMALL + line + "\n"))
    assert "f.yaml:4" in found
    assert not any(secret in found for secret in (HF, WANDB, "qqqqqqqq"))


@pytest.mark.parametrize("override", [f"env.A={HF}", f"secrets=[X={HF}]", f"{HF}=1", HF])
def test_a_secret_in_an_override_is_never_shown(override: str) -> None:
    found = problems(SMALL, override)
    assert found
    assert HF not in "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "TOKENIZERS_PARALLELISM=false",
        "git checkout 0123456789abcdef0123456789abcdef01234567",
        "hf_transfer",
        "https://example.org/a@b",
        "export HF_TOKEN=$HF_TOKEN",
        "s3://bucket/prefix",
        "task-specific-sk-learn",
    ],
)
def test_ordinary_text_is_no_secret(text: str) -> None:
    assert not holds_token(text)
    assert job(SMALL + f"setup: '{text}'\n").setup == text


@pytest.mark.parametrize(
    "unit", ["eyJ", "a", "TOKEN_", "TOKEN= ", "x://a:", "sk- ", "-----BEGIN ", "eyJ0123456789. "]
)
def test_looking_for_secrets_takes_time_linear_in_the_text(unit: str) -> None:
    """Quadratic matching of this would outlast any patience: there is nothing to time."""
    assert not holds_token(unit * (900_000 // len(unit)))
