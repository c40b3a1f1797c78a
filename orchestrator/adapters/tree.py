"""The port Trees: what of a folder travels to a box, and the manifest of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pathspec import GitIgnoreSpec

from orchestrator.adapters.durable import disk_room, make_folder, sync_folder, sync_folders
from orchestrator.adapters.hashes import HashCache
from orchestrator.errors import BadJobFile, IntegrityError
from orchestrator.ports import Scan
from remote.contract import CHUNK_BYTES, MAX_FILES, ContractError, FileEntry, Manifest, check_path

IGNORE_FILES = (".gitignore", ".gpujobignore")  # the later one has the last word
NEVER = (
    *(".git", ".env", ".env.*", ".netrc", ".ssh", "credentials.toml"),
    *("*.pem", "*.key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    *("__pycache__", ".venv", ".gpujob"),
)


class LocalTrees:
    """Hashes are kept in `cache` by path, size and mtime, so that data are read once."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = HashCache(cache)

    def scan(self, root: Path, exclude: Sequence[str], *, ignore_files: bool) -> Scan:
        """Besides .git, .env and key files, `NEVER` names caches and environments that are of no
        use elsewhere. A symbolic link to a file inside the tree travels as that file; any other
        link, and whatever is no file, is skipped and said so."""
        if not root.is_dir():
            return _single(root)
        walk = _Walk(root, exclude, ignore_files=ignore_files)
        paths = tuple(sorted(walk.files(root)))
        if len(paths) > MAX_FILES:
            raise BadJobFile(
                f"{root} holds {len(paths)} files, and at most {MAX_FILES} travel.",
                hint="name the folders that need not travel in .gpujobignore",
            )
        return Scan(paths, tuple(sorted(walk.skipped)))

    def manifest(self, root: Path, scan: Scan) -> Manifest:
        folder = root if root.is_dir() else root.parent
        entries = tuple(self._cache.entry(folder, path) for path in scan.paths)
        self._cache.save()
        return Manifest(entries)

    def snapshot(self, root: Path, manifest: Manifest, dest: Path) -> None:
        """`dest` is there whole or not at all; the bytes are hashed as they are copied."""
        folder = root if root.is_dir() else root.parent
        beside = dest.with_name(f".{dest.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        with disk_room(dest.parent, safe="Nothing was rented."):
            make_folder(beside)
            for entry in manifest.files:
                _copy(folder / entry.path, beside / entry.path, entry)
            sync_folders(beside)
            beside.rename(dest)
            sync_folder(dest.parent)

    def drifted(self, root: Path, manifest: Manifest) -> list[str]:
        """The files below `root` that are not what `manifest` says, each with what is wrong."""
        folder = root if root.is_dir() else root.parent
        return [wrong for entry in manifest.files if (wrong := self._drift(folder, entry))]

    def _drift(self, folder: Path, entry: FileEntry) -> str:
        try:
            found = self._cache.entry(folder, entry.path)
        except OSError as error:
            return f"{entry.path}: {error.strerror}"
        return "" if found.sha256 == entry.sha256 else f"{entry.path}: changed since the plan"


class _Walk:
    """One walk of one tree, as git would: the deepest file that has an opinion decides, the
    last line in it first, and nothing inside an ignored folder comes back."""

    def __init__(self, root: Path, exclude: Sequence[str], *, ignore_files: bool) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._root = root
        self._real = root.resolve()
        self._exclude = GitIgnoreSpec.from_lines(exclude)
        self._ignore_files = ignore_files
        self._specs: dict[str, list[GitIgnoreSpec]] = {}

    def files(self, folder: Path) -> Iterator[str]:
        below = self._name(folder)
        self._specs[below] = self._read(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, name = Path(entry.path), self._name(Path(entry.path))
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_never(entry.name) or self._is_ignored(name + "/" * is_folder):
                continue
            if is_folder and (path / ".gpujob" / "run.json").is_file():
                continue  # a mirror: checkpoints that came home are no code
            if is_folder:
                yield from self.files(path)
            elif why := self._obstacle(path, name):
                self.skipped.append((name, why))
            else:
                yield name

    def _obstacle(self, path: Path, name: str) -> str:
        """Why a file cannot travel; empty when it can."""
        try:
            check_path(name)
        except ContractError as error:
            return str(error)
        if path.is_symlink():
            return self._link_obstacle(path)
        return "" if path.is_file() else "not a regular file"

    def _link_obstacle(self, path: Path) -> str:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return "a link that leads nowhere"
        if not target.is_relative_to(self._real):
            return "a link that leaves the tree"
        if any(is_never(part) for part in target.relative_to(self._real).parts):
            return "a link to what never travels"
        return "" if target.is_file() else "a link to what is not a file"

    def _is_ignored(self, name: str) -> bool:
        if self._exclude.match_file(name):
            return True
        for base in _bases(name):
            inner = name[len(base) + 1 :] if base else name
            for spec in reversed(self._specs.get(base, [])):
                include = spec.check_file(inner).include
                if include is not None:
                    return include
        return False

    def _read(self, folder: Path) -> list[GitIgnoreSpec]:
        if not self._ignore_files:
            return []
        paths = [folder / name for name in IGNORE_FILES]
        return [
            GitIgnoreSpec.from_lines(path.read_text(errors="replace").splitlines())
            for path in paths
            if path.is_file()
        ]

    def _name(self, path: Path) -> str:
        name = path.relative_to(self._root).as_posix()
        return "" if name == "." else name


def _single(file: Path) -> Scan:
    if is_never(file.name):
        raise BadJobFile(
            f"{file} never travels: files of this name hold keys.",
            hint="name what is in it under `secrets:`",
        )
    return Scan((check_path(file.name),))


def is_never(name: str) -> bool:
    """Whether a file or folder of this name stays here whatever the job file says."""
    return any(fnmatchcase(name, pattern) for pattern in NEVER)


def _bases(name: str) -> Iterator[str]:
    """The folders above `name`, deepest first, down to the root (the empty name)."""
    base = name.rstrip("/")
    while base:
        base = base.rpartition("/")[0]
        yield base


def _copy(source: Path, target: Path, entry: FileEntry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    whole = hashlib.sha256()
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            while block := reader.read(CHUNK_BYTES):
                whole.update(block)
                writer.write(block)
            os.fchmod(writer.fileno(), 0o500 if entry.executable else 0o400)
            writer.flush()
            os.fsync(writer.fileno())
    except FileNotFoundError as error:
        raise _changed(source) from error
    if whole.hexdigest() != entry.sha256:
        raise _changed(source)


def _changed(source: Path) -> IntegrityError:
    return IntegrityError(
        f"{source} changed while the plan was made, so what would run is not what was shown. "
        "Nothing was rented.",
        hint="launch again",
    )
