"""What travels of a folder, what never does, and the manifest of it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from orchestrator.adapters.check import problems
from orchestrator.adapters.tree import LocalTrees, is_never
from orchestrator.errors import BadJobFile, IntegrityError
from orchestrator.ports import Scan

TREE = {
    "train.py": "print()",
    "data/a.parquet": "a",
    "data/keep.txt": "k",
    "logs/x.log": "x",
    "src/deep/y.log": "y",
    "src/deep/z.py": "z",
    ".env": "SECRET=1",
    ".env.local": "SECRET=2",
    "src/server.pem": "key",
    "src/id_rsa": "key",
    "src/tls.key": "key",
    ".netrc": "key",
    ".ssh/config": "key",
    "credentials.toml": "key",
    ".git/HEAD": "ref",
    "src/__pycache__/z.pyc": "z",
    ".venv/bin/python": "p",
}
CODE = {"train.py", "data/a.parquet", "data/keep.txt", "logs/x.log"}
ALL = CODE | {"src/deep/y.log", "src/deep/z.py"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


@pytest.fixture
def trees(tmp_path: Path) -> LocalTrees:
    return LocalTrees(tmp_path / "state" / "hashes.json")


def scan(trees: LocalTrees, root: Path, *exclude: str, ignore_files: bool = True) -> set[str]:
    found = trees.scan(root, exclude, ignore_files=ignore_files)
    assert list(found.paths) == sorted(found.paths)
    return set(found.paths) - {".gitignore", ".gpujobignore", "data/.gitignore", "src/.gitignore"}


def test_keys_environments_and_git_never_travel(trees: LocalTrees, root: Path) -> None:
    assert scan(trees, root) == ALL
    assert scan(trees, root, ignore_files=False) == ALL


@pytest.mark.parametrize(
    ("ignores", "exclude", "left_out"),
    [
        ({".gitignore": "*.log\n"}, (), {"logs/x.log", "src/deep/y.log"}),
        ({".gitignore": "/logs/\n"}, (), {"logs/x.log"}),
        ({".gitignore": "data/*\n!data/keep.txt\n"}, (), {"data/a.parquet"}),
        ({".gitignore": "data/\n!data/keep.txt\n"}, (), {"data/a.parquet", "data/keep.txt"}),
        ({".gitignore": "*.log\n", "src/.gitignore": "!*.log\n"}, (), {"logs/x.log"}),
        ({"src/.gitignore": "/deep/z.py\n"}, (), {"src/deep/z.py"}),
        ({"src/.gitignore": "*.txt\n"}, (), set()),
        ({".gpujobignore": "data/\n"}, (), {"data/a.parquet", "data/keep.txt"}),
        ({".gitignore": "*.log\n", ".gpujobignore": "!x.log\n"}, (), {"src/deep/y.log"}),
        ({}, ("data/", "*.log"), ALL - {"train.py", "src/deep/z.py"}),
        ({".gitignore": "!data/\n"}, ("data/",), {"data/a.parquet", "data/keep.txt"}),
        ({".gitignore": "!.env\n!*.pem\n"}, ("!.env",), set()),
        ({".gitignore": "# data/\n\n\\!x\n"}, (), set()),
    ],
)
def test_ignore_files_decide_as_git_would(
    trees: LocalTrees,
    root: Path,
    ignores: dict[str, str],
    exclude: tuple[str, ...],
    left_out: set[str],
) -> None:
    for name, text in ignores.items():
        (root / name).write_text(text)
    assert scan(trees, root, *exclude) == ALL - left_out


def test_data_do_not_honour_ignore_files(trees: LocalTrees, root: Path) -> None:
    (root / ".gitignore").write_text("*\n")
    assert scan(trees, root, ignore_files=False) == ALL


@pytest.mark.skipif(subprocess.run(["which", "git"]).returncode != 0, reason="git is not here")
def test_git_agrees(trees: LocalTrees, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    lines = ["*.log", "!keep.log", "/build", "doc/**/*.txt", "a b", "foo/", "**/cache", "x[0-9]"]
    names = ["a.log", "keep.log", "s/keep.log", "build/x", "s/build/x", "doc/a/b.txt", "doc/c.txt"]
    names += ["a b", "foo/x", "s/foo", "s/cache/y", "x1", "xy", "foo.txt", "é.log", "doc/é"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / ".gitignore").write_text("\n".join(lines))
    (root / "s" / ".gitignore").write_text("!cache\n!foo\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-coz", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert set(trees.scan(root, (), ignore_files=True).paths) == set(listed.stdout.split("\0")) - {
        ""
    }


def test_links_travel_only_as_files_of_the_tree(trees: LocalTrees, root: Path) -> None:
    (root / "inside").symlink_to("data/a.parquet")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "secret").symlink_to(".env")
    (root / "folder").symlink_to("data")
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    found = trees.scan(root, (), ignore_files=True)
    assert set(found.paths) == ALL | {"inside"}
    assert {name for name, _ in found.skipped} == {
        *("outside", "secret", "folder", "broken", "loop", "pipe")
    }
    (entry,) = trees.manifest(root, Scan(("inside",))).files
    assert entry.size == len("a")


def test_a_name_that_cannot_travel_is_told(trees: LocalTrees, root: Path) -> None:
    (root / "line\nbreak").write_text("")
    (root / "back\\slash").write_text("")
    found = trees.scan(root, (), ignore_files=True)
    assert set(found.paths) == ALL
    assert len(found.skipped) == 2


def test_a_file_is_a_tree_of_one(trees: LocalTrees, root: Path) -> None:
    file = root / "data" / "a.parquet"
    found = trees.scan(file, (), ignore_files=False)
    assert found.paths == ("a.parquet",)
    assert [each.path for each in trees.manifest(file, found).files] == ["a.parquet"]
    with pytest.raises(BadJobFile, match="never travels"):
        trees.scan(root / ".env", (), ignore_files=False)


def test_a_snapshot_is_the_manifest_s_tree_with_its_programs(
    trees: LocalTrees, root: Path, tmp_path: Path
) -> None:
    (root / "train.py").chmod(0o755)
    found = trees.scan(root, (), ignore_files=True)
    manifest = trees.manifest(root, found)
    dest = tmp_path / "runs" / "code"
    dest.parent.mkdir()
    trees.snapshot(root, manifest, dest)
    assert problems(dest, manifest) == []
    assert trees.manifest(dest, found).files == manifest.files
    assert {each.path for each in manifest.files if each.executable} == {"train.py"}
    assert stat.S_IMODE((dest / "train.py").stat().st_mode) == 0o500


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_snapshot_of_what_changed_is_refused_whole(
    trees: LocalTrees, root: Path, tmp_path: Path, how: str
) -> None:
    manifest = trees.manifest(root, trees.scan(root, (), ignore_files=True))
    if how == "gone":
        (root / "train.py").unlink()
    else:
        (root / "train.py").write_text("import os")
    with pytest.raises(IntegrityError, match=r"train\.py changed"):
        trees.snapshot(root, manifest, tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_drift_is_told_by_file(trees: LocalTrees, root: Path) -> None:
    manifest = trees.manifest(root, trees.scan(root, (), ignore_files=True))
    assert trees.drifted(root, manifest) == []
    (root / "train.py").write_text("import os")
    (root / "data" / "keep.txt").unlink()
    assert trees.drifted(root, manifest) == [
        "data/keep.txt: No such file or directory",
        "train.py: changed since the plan",
    ]


def test_a_known_hash_is_used_until_size_or_mtime_change(tmp_path: Path) -> None:
    """The cache is what says so: bytes changed behind its back are not seen, on purpose."""
    data, cache = tmp_path / "data.bin", tmp_path / "hashes.json"
    data.write_bytes(b"a" * 2_000_000)
    os.utime(data, ns=(10**18, 10**18))
    first = LocalTrees(cache).manifest(data, Scan(("data.bin",)))
    data.write_bytes(b"b" * 2_000_000)
    os.utime(data, ns=(10**18, 10**18))
    assert LocalTrees(cache).manifest(data, Scan(("data.bin",))) == first
    os.utime(data, ns=(10**18, 10**18 + 1))
    assert LocalTrees(cache).manifest(data, Scan(("data.bin",))) != first


@pytest.mark.parametrize("text", ["", "[]", '{"v": 2}', '{"v": 1, "files": {"x": 1}}'])
def test_a_damaged_cache_is_none(tmp_path: Path, root: Path, text: str) -> None:
    (tmp_path / "hashes.json").write_text(text)
    manifest = LocalTrees(tmp_path / "hashes.json").manifest(root, Scan(("train.py",)))
    assert problems(root, manifest) != []
    assert manifest.files[0].size == len(TREE["train.py"])


@pytest.mark.parametrize("name", ["id_rsa", "x.pem", ".env.prod", "a.key", ".git"])
def test_never(name: str) -> None:
    assert is_never(name)


@pytest.mark.parametrize("name", ["environment.yml", "id_map.json", "keys.py", ".gitignore"])
def test_not_never(name: str) -> None:
    assert not is_never(name)
