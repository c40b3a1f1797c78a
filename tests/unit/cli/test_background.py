"""What a daemon is born with: where the APIs are, and none of the shell's secrets."""

from __future__ import annotations

import pytest

from orchestrator.cli.background import clean_environment

GIVEN = {
    "RUNPOD_API_URL": "http://here:1",
    "TNR_API_URL": "http://there:2",
    "RUNPOD_API_KEY": "secret",
    "TNR_API_TOKEN": "secret",
    "HF_TOKEN": "secret",
    "GPUJOB_HOME": "/state",
}


def test_addresses_are_inherited_and_keys_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    born_with = clean_environment()
    assert {name for name in GIVEN if name in born_with} == {
        "RUNPOD_API_URL",
        "TNR_API_URL",
        "GPUJOB_HOME",
    }
    assert "secret" not in born_with.values()
