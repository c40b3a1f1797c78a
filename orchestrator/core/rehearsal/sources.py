"""What the user's own Python says before it runs: what it needs, and which flags it knows."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

# Modules whose package has another name.
_PACKAGE = {
    "yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python",
    "dotenv": "python-dotenv", "bs4": "beautifulsoup4", "git": "gitpython", "dateutil":
    "python-dateutil", "flash_attn": "flash-attn", "attr": "attrs", "google": "protobuf",
}  # fmt: skip
# What comes along: a package that is listed brings these modules too.
_BRINGS = {
    "torch": {"numpy", "typing_extensions", "filelock", "jinja2", "fsspec", "sympy", "networkx"},
    "transformers": {"numpy", "tqdm", "requests", "yaml", "tokenizers", "safetensors",
                     "huggingface_hub", "packaging", "regex", "filelock"},
    "datasets": {"numpy", "pandas", "pyarrow", "dill", "multiprocess", "fsspec", "tqdm",
                 "requests", "huggingface_hub", "xxhash", "yaml"},
    "accelerate": {"torch", "numpy", "psutil", "yaml", "safetensors", "huggingface_hub"},
    "peft": {"torch", "transformers", "accelerate", "numpy", "tqdm", "safetensors"},
    "trl": {"torch", "transformers", "accelerate", "datasets", "numpy", "tqdm"},
    "deepspeed": {"torch", "numpy", "psutil", "tqdm", "einops", "pydantic", "packaging"},
    "vllm": {"torch", "transformers", "numpy", "ray", "pydantic", "tqdm", "requests"},
    "pandas": {"numpy", "dateutil", "pytz"},
    "scipy": {"numpy"}, "scikit-learn": {"numpy", "scipy", "joblib"},
}  # fmt: skip
ON_IMAGES = frozenset({"torch", "numpy"})  # what images for training always have
_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_INSTALL = re.compile(r"pip3?\s+install\s+([^\n;&|]+)")
_LAUNCHER_VALUES = ("--num_gpus", "--nproc_per_node", "--nproc-per-node", "--config_file",
                    "--num_processes", "--master_port", "--nnodes", "--include", "--hostfile",
                    "--deepspeed_config_file", "--num_machines", "--mixed_precision")  # fmt: skip
_ANY_ARGUMENT = re.compile(
    r"HfArgumentParser|TrainingArguments|SFTConfig|DPOConfig|OmegaConf|hydra|TrlParser|parse_known_args"
)


def entries(command: str) -> tuple[str, ...]:
    """The scripts and `-m` modules of the user's that a command starts, in order; a module as the
    file that it would be."""
    found = []
    for words in _commands(command):
        for index, word in enumerate(words):
            before = words[index - 1] if index else ""
            if before == "-m" and re.fullmatch(r"[A-Za-z_][\w.]*", word):
                found.append(word.replace(".", "/") + ".py")
                break
            if word.endswith(".py") and "=" not in word:
                found.append(word)
                break
    return tuple(dict.fromkeys(str(PurePosixPath(each)) for each in found))


def outside(entry: str, sources: Mapping[str, str]) -> frozenset[str]:
    """The top names of all modules that `entry`, and what it imports of `sources` (the code's own
    files), need and that are neither there nor Python's own. What a `try` guards is optional."""
    needed = {
        name.split(".")[0]
        for path in _reached(entry, sources)
        for name in _imports(sources[path])
        if _own(name, path, sources) is None
    }
    return frozenset(needed - set(sys.stdlib_module_names) - {"__future__"})


def variables(entry: str, sources: Mapping[str, str]) -> frozenset[str]:
    """Environment variables that `entry`, and what it imports of `sources`, cannot do without:
    those it takes as `os.environ["NAME"]`, outside of a `try`."""
    found = (node for path in _reached(entry, sources) for node in _unguarded(sources[path]))
    return frozenset(
        node.slice.value
        for node in found
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value) in ("os.environ", "environ")
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    )


def missing(modules: Collection[str], listed: Collection[str]) -> tuple[str, ...]:
    """Those of `modules` that none of the packages `listed` brings and no image has."""
    packages = {_plain(each) for each in listed}
    brought = {module for each in packages for module in _BRINGS.get(each, ())}
    while True:
        more = {m for each in brought for m in _BRINGS.get(_plain(each), ())} | brought
        if more == brought:
            break
        brought = more
    there = {_plain(each) for each in brought | ON_IMAGES} | packages
    return tuple(
        each
        for each in sorted(modules)
        if _plain(each) not in there and _plain(_PACKAGE.get(each, each)) not in there
    )


def package_of(module: str) -> str:
    return _PACKAGE.get(module, module)


def requirements(text: str) -> tuple[str, ...]:
    """The names of a requirements file; options, links and comments are passed over."""
    lines = (line.strip() for line in text.splitlines())
    found = (_NAME.match(line) for line in lines if not line.startswith(("#", "-")))
    return tuple(match[1] for match in found if match)


def installs(setup: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `pip install` lines of a setup name: requirement files, and packages."""
    files, packages = [], []
    for match in _INSTALL.finditer(setup):
        words = _split(match[1])
        for index, word in enumerate(words):
            if index and words[index - 1] in ("-r", "--requirement"):
                files.append(word)
            elif word.startswith("-r") and len(word) > 2:
                files.append(word[2:])
            elif not word.startswith("-") and (name := _NAME.match(word)):
                packages.append(name[1])
    return tuple(files), tuple(packages)


def knows_flag(flag: str, entry: str, sources: Mapping[str, str]) -> bool:
    """Whether the code reads this flag: it names it, or leaves its arguments to a library."""
    path = _file_of(entry, sources)
    if path is None:
        return True
    name = flag.lstrip("-").split("=")[0]
    texts = sources.values()
    spoken = (name, name.replace("_", "-"), name.replace("-", "_"))
    if any(_ANY_ARGUMENT.search(text) for text in texts):
        return True
    return any(re.search(rf"\b{re.escape(each)}\b", text) for text in texts for each in spoken)


def flags(args: str) -> tuple[str, ...]:
    return tuple(word.split("=")[0] for word in _split(args) if word.startswith("--"))


def _commands(command: str) -> Iterator[list[str]]:
    joined = re.sub(r"\\\n", " ", command)
    for line in re.split(r"[\n;]|&&|\|\|?", joined):
        words = _split(line)
        skipped = [
            word
            for index, word in enumerate(words)
            if word not in _LAUNCHER_VALUES and not (index and words[index - 1] in _LAUNCHER_VALUES)
        ]
        yield skipped


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _file_of(entry: str, sources: Mapping[str, str]) -> str | None:
    stem = entry.removesuffix(".py")
    for path in (entry, f"{stem}/__main__.py", f"src/{entry}", f"src/{stem}/__main__.py"):
        if path in sources:
            return path
    return None


def _reached(entry: str, sources: Mapping[str, str]) -> Iterator[str]:
    """The file of `entry`, and those of the code that it imports, and so on; each once."""
    seen: set[str] = set()
    left = [_file_of(entry, sources)]
    while left:
        path = left.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        yield path
        left += [own for name in _imports(sources[path]) for own in _own(name, path, sources) or ()]


def _unguarded(text: str) -> Iterator[ast.AST]:
    """Everything outside of a `try`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    guarded = {
        id(node) for each in ast.walk(tree) if isinstance(each, ast.Try) for node in ast.walk(each)
    }
    yield from (node for node in ast.walk(tree) if id(node) not in guarded)


def _imports(text: str) -> Iterator[str]:
    for node in _unguarded(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A name may be a module too; where it is none, the one above it is found.
            above = "." * node.level + (f"{node.module}." if node.module else "")
            yield from (above + alias.name for alias in node.names)


def _own(name: str, path: str, sources: Mapping[str, str]) -> list[str] | None:
    """The files of the code that an import loads; None when it is not the code's."""
    folder = PurePosixPath(path).parent
    if name.startswith("."):
        level = len(name) - len(name.lstrip("."))
        for _ in range(level - 1):
            folder = folder.parent
        roots = [folder]
    else:
        roots = [folder, PurePosixPath(), PurePosixPath("src")]
    parts = [part for part in name.lstrip(".").split(".") if part]
    for root in roots:
        for count in range(len(parts), -1 if name.startswith(".") else 0, -1):
            base = str(root.joinpath(*parts[:count]))
            found = [p for p in (f"{base}.py", f"{base}/__init__.py") if p in sources]
            if found:
                return found
    top = f"{parts[0]}/" if parts else ""
    has_folder = any(p.startswith((top, f"{folder}/{top}")) for p in sources) if top else True
    return [] if has_folder else None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
