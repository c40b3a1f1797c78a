"""The direction of imports, read from the source: who may know whom, and that nothing is cyclic."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIRST_PARTY = ("orchestrator", "remote")

# What a job file's `train:` may say stands once, where it is read, and is checked here with it.
SETTINGS_OF_THE_TRAINER = ("remote.trainer.settings", "remote.trainer.args")
# A package of the left may import first-party modules that begin with one of the right.
MAY_IMPORT = {
    "remote.contract": (),
    "remote.agent": ("remote.contract", "remote.agent"),
    "remote.trainer": ("remote.contract", "remote.trainer"),
    "remote.standin": ("remote.standin",),
    "orchestrator.core": (
        "orchestrator.core",
        "orchestrator.errors",
        "remote.contract",
        *SETTINGS_OF_THE_TRAINER,
    ),
    "orchestrator.ports": ("orchestrator.core", "remote.contract"),
    "orchestrator.flows": (
        "orchestrator.flows",
        "orchestrator.core",
        "orchestrator.ports",
        "orchestrator.errors",
        "remote.contract",
    ),
    "orchestrator.adapters": (
        "orchestrator.adapters",
        "orchestrator.core",
        "orchestrator.ports",
        "orchestrator.errors",
        "orchestrator.holder",
        "remote.contract",
        "remote.s3",
    ),
    "orchestrator.views": ("orchestrator.views", "orchestrator.core"),
    "orchestrator.cli": (
        "orchestrator.cli",
        "orchestrator.core",
        "orchestrator.daemon",
        "orchestrator.errors",
        "orchestrator.flows",
        "orchestrator.ports",
        "orchestrator.settings",
        "orchestrator.version",
        "orchestrator.views",
        "orchestrator.wiring",
    ),
}
HEAVY = ("torch", "boto3", "paramiko", "fabric", "pydantic", "httpx", "transformers", "deepspeed")
# A verb loads lazily and so does an adapter; nothing else is imported inside a function.
LAZY = (
    "orchestrator.wiring",
    "orchestrator.views.screen",
    "remote.trainer",
    "orchestrator.cli.lazy",
)


def _modules() -> dict[str, Path]:
    found = {}
    for package in FIRST_PARTY:
        for path in sorted((ROOT / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[dotted.removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                yield dotted if dotted in MODULES else node.module


def _first_party(path: Path) -> set[str]:
    return {name for name in _imports(path) if name.split(".")[0] in FIRST_PARTY}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package]
    for module, path in MODULES.items():
        if module == package or module.startswith(f"{package}."):
            wrong = [
                name
                for name in _first_party(path)
                if not any(name == each or name.startswith((f"{each}.", f"{each}_"))
                           for each in allowed)
            ]  # fmt: skip
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_no_cycles() -> None:
    edges = {
        module: {
            name for name in _imports(path, top_only=True) if name in MODULES and name != module
        }
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for name in edges[module]:
                visit(name, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_agent_needs_only_the_standard_library() -> None:
    for module, path in MODULES.items():
        if module.startswith(("remote.agent", "remote.contract", "remote.standin")):
            tops = {name.split(".")[0] for name in _imports(path)} - {"remote"}
            assert tops <= set(sys.stdlib_module_names), f"{module}: {tops}"


def test_the_settings_of_the_trainer_need_only_the_standard_library() -> None:
    seen, left = set[str](), set(SETTINGS_OF_THE_TRAINER)
    while left:
        module = left.pop()
        seen.add(module)
        names = set(_imports(MODULES[module]))
        ours = {name for name in names if name in MODULES}
        assert {name.split(".")[0] for name in names - ours} <= set(sys.stdlib_module_names), module
        left |= ours - seen
    assert "remote.trainer.zero" in seen


def test_the_controller_never_imports_torch() -> None:
    for module, path in MODULES.items():
        if module.startswith("orchestrator"):
            assert "torch" not in {name.split(".")[0] for name in _imports(path)}, module


def test_imports_inside_functions_only_where_something_loads_lazily() -> None:
    for module, path in MODULES.items():
        if module.startswith(LAZY):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner = [
                    each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)
                ]
                assert not inner, f"{module}.{node.name} imports inside"


def test_no_provider_is_named_outside_wiring() -> None:
    names = {"runpod", "thunder", "local"}
    for module, path in MODULES.items():
        if not module.startswith(("orchestrator.flows", "orchestrator.core.decide")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not words & names, f"{module}:{node.lineno} branches on a provider's name"


@pytest.mark.parametrize("words", [["--help"], ["ps"], ["--version"]], ids=" ".join)
def test_quick_verbs_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.cli import main\n"
        f"sys.argv = ['gpujob', *{words!r}]\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GPUJOB_HOME": str(tmp_path / "s")},
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
