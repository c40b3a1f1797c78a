"""The agent as one file: the same bytes every time, and nothing but itself inside."""

from __future__ import annotations

import io
import zipfile

from orchestrator.adapters.check import problems
from orchestrator.adapters.zipapp import build_agent, library


def test_the_same_code_makes_the_same_bytes() -> None:
    assert build_agent() == build_agent()


def test_the_agent_holds_the_contract_and_no_trainer() -> None:
    names = zipfile.ZipFile(io.BytesIO(build_agent())).namelist()
    assert {"__main__.py", "remote/__init__.py", "remote/contract.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    assert not any("remote/trainer" in name for name in names)


def test_the_library_is_the_trainer_as_it_is_installed() -> None:
    root, manifest = library()
    paths = {entry.path for entry in manifest.files}
    assert {"remote/__init__.py", "remote/contract.py", "remote/trainer/__init__.py"} <= paths
    assert not any("__pycache__" in path or "remote/agent" in path for path in paths)
    missing = [line for line in problems(root, manifest) if "not in the manifest" not in line]
    assert missing == []
