"""Whose word about a key counts, who else may read it, and that nobody ever sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.credentials import KEPT, Credentials
from orchestrator.errors import BadJobFile, GpujobError, Missing, Refused
from orchestrator.settings import Pair, Settings

SECRET = "rpa_VERYSECRET0123456789"
PROVIDER = "runpod"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "config").mkdir()
    return Settings(state=tmp_path / "state", config=tmp_path / "config")


def shell(settings: Settings, key: str = "from-shell", url: str = "") -> Settings:
    urls = {PROVIDER: url} if url else {}
    return replace(settings, keys={PROVIDER: key} if key else {}, urls=urls)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def file(settings: Settings, key: str = "from-file") -> Path:
    return write(settings.config / "credentials.toml", f'[{PROVIDER}]\nkey = "{key}"\n')


def kept(settings: Settings, key: str = "from-launch") -> Path:
    return write(settings.state / KEPT, f'[{PROVIDER}]\nkey = "{key}"\n')


def no_ring(_: str) -> None:
    return None


def ring(_: str) -> str:
    return "from-ring"


ORDER = {
    # environment, file, keyring, kept → a verb's, the daemon's
    "all": ((True, True, True, True), "from-shell", "from-launch"),
    "no environment": ((False, True, True, True), "from-file", "from-launch"),
    "keyring and kept": ((False, False, True, True), "from-ring", "from-launch"),
    "kept alone": ((False, False, False, True), "from-launch", "from-launch"),
    "nothing kept": ((True, True, True, False), "from-shell", "from-file"),
    "environment alone": ((True, False, False, False), "from-shell", "from-shell"),
    "none": ((False, False, False, False), None, None),
}


@pytest.mark.parametrize("case", ORDER)
def test_which_key_is_taken(settings: Settings, case: str) -> None:
    (in_shell, in_file, in_ring, is_kept), verbs, daemons = ORDER[case]
    settings = shell(settings) if in_shell else settings
    if in_file:
        file(settings)
    if is_kept:
        kept(settings)
    lookup = ring if in_ring else no_ring
    found = [
        Credentials(settings, lookup, kept_first=first).find(PROVIDER) for first in (False, True)
    ]
    assert [key.value if key else None for key in found] == [verbs, daemons]


@pytest.mark.parametrize("make", [file, kept], ids=["credentials.toml", "keys.toml"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660], ids=oct)
def test_a_file_that_others_may_read_is_refused(settings: Settings, make, mode: int) -> None:
    path = make(settings, SECRET)
    path.chmod(mode)
    with pytest.raises(Missing) as error:
        Credentials(settings, no_ring).find(PROVIDER)
    assert f"chmod 600 {path}" in (error.value.hint or "")


BROKEN = {
    "torn": f'[runpod]\nkey = "{SECRET}',
    "bare": f"{SECRET}\n",
    "not in a table": f'runpod = "{SECRET}"\n',
    "another table": f'[rumpod]\nkey = "{SECRET}"\n',
    "another name": f'[runpod]\ntoken = "{SECRET}"\n',
    "a list": f'[runpod]\nkey = ["{SECRET}"]\n',
    "a blank inside": f'[runpod]\nkey = "{SECRET} x"\n',
    "two lines": f'[runpod]\nkey = "{SECRET}\\nX-Header: 1"\n',
    "binary": f"[runpod]\nkey = '{SECRET}\x00'\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_wrong_is_told_without_a_word_of_it(settings: Settings, text: str) -> None:
    path = write(settings.config / "credentials.toml", text)
    with pytest.raises(BadJobFile) as error:
        Credentials(settings, no_ring).find(PROVIDER)
    assert str(path) in error.value.message
    told = f"{error.value.message} {error.value.hint} {error.getrepr(style='long')}"
    assert SECRET not in _without_source(told)


def _without_source(text: str) -> str:
    """What the traceback shows of this test's own source is no leak."""
    return "\n".join(line for line in text.splitlines() if "write(" not in line)


def test_a_file_that_cannot_be_read(settings: Settings) -> None:
    (settings.config / "credentials.toml").mkdir(mode=0o700)
    with pytest.raises(Missing, match="cannot be read"):
        Credentials(settings, no_ring).find(PROVIDER)


def test_a_key_is_not_in_any_repr(settings: Settings) -> None:
    settings = shell(settings, SECRET)
    credentials = Credentials(settings, no_ring)
    key = credentials.find(PROVIDER)
    assert key and key.value == SECRET
    assert SECRET not in f"{key!r} {credentials!r} {settings!r} {key}"


def test_no_key_says_how_to_give_one(settings: Settings) -> None:
    with pytest.raises(Refused) as error:
        Credentials(settings, no_ring).key(PROVIDER)
    assert error.value.provider_wide
    assert "RUNPOD_API_KEY" in (error.value.hint or "")
    assert str(settings.config / "credentials.toml") in (error.value.hint or "")


def test_what_launch_keeps_is_for_its_owner_and_reaches_a_daemon_that_runs(
    settings: Settings,
) -> None:
    daemon = Credentials(settings, no_ring, kept_first=True)
    assert daemon.find(PROVIDER) is None
    Credentials(shell(settings, SECRET, "http://there:1/"), no_ring).keep([PROVIDER])
    assert (settings.state / KEPT).stat().st_mode & 0o777 == 0o600
    assert daemon.key(PROVIDER) == SECRET
    assert daemon.url(PROVIDER) == "http://there:1"
    Credentials(shell(settings, "another"), no_ring).keep([PROVIDER])
    assert daemon.key(PROVIDER) == "another"


def test_a_daemon_of_another_shell_asks_where_the_run_was_launched(settings: Settings) -> None:
    Credentials(shell(settings), no_ring).keep([PROVIDER])
    elsewhere = shell(settings, "other", "http://elsewhere:1")
    daemon = Credentials(elsewhere, no_ring, kept_first=True)
    assert daemon.url(PROVIDER) == "https://api.runpod.io"
    assert daemon.key(PROVIDER) == "from-shell"


def test_a_key_that_is_in_a_file_is_not_kept_twice(settings: Settings) -> None:
    file(settings)
    kept(settings)
    Credentials(settings, no_ring).keep([PROVIDER])
    assert "key =" not in (settings.state / KEPT).read_text()
    assert Credentials(settings, no_ring, kept_first=True).key(PROVIDER) == "from-file"


def test_keeping_the_same_again_writes_nothing(settings: Settings) -> None:
    Credentials(shell(settings), no_ring).keep([PROVIDER])
    before = (settings.state / KEPT).stat()
    Credentials(shell(settings), no_ring).keep([PROVIDER])
    assert (settings.state / KEPT).stat().st_ino == before.st_ino


CHANGES = {
    "another key": ("another-key", "", "the key"),
    "another API": ("from-shell", "http://elsewhere:1", "RUNPOD_API_URL"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_live_runs_are_not_cut_off_from_their_account(settings: Settings, case: str) -> None:
    key, url, words = CHANGES[case]
    Credentials(shell(settings), no_ring).keep([PROVIDER])
    before = (settings.state / KEPT).read_text()
    changed = Credentials(shell(settings, key, url), no_ring)
    with pytest.raises(GpujobError, match="live runs rent") as error:
        changed.keep([PROVIDER], {PROVIDER})
    assert words in error.value.message
    assert "another-key" not in f"{error.value.message} {error.value.hint}"
    assert (settings.state / KEPT).read_text() == before
    changed.keep([PROVIDER], {"thunder"})
    assert (settings.state / KEPT).read_text() != before


PAIR = '[s3]\nkey_id = "AKIAFILE"\nsecret = "file-secret"\n'


def pair(settings: Settings, keyring=no_ring):
    found = Credentials(settings, keyring).pair("s3")
    return found and (found.key_id, found.secret, found.token)


def test_a_pair_for_s3_is_the_environments_then_the_files_then_the_keyrings(
    settings: Settings,
) -> None:
    ring_pair = {"s3-key_id": "AKIARING", "s3-secret": "ring-secret"}.get
    assert pair(settings) is None
    assert pair(settings, ring_pair) == ("AKIARING", "ring-secret", "")
    write(settings.config / "credentials.toml", PAIR + file_of_a_provider())
    assert pair(settings, ring_pair) == ("AKIAFILE", "file-secret", "")
    of_shell = Pair("AKIASHELL", "shell-secret", "t", "GPUJOB_S3_KEY_ID")
    assert pair(replace(settings, pairs={"s3": of_shell})) == ("AKIASHELL", "shell-secret", "t")
    assert "secret" not in repr(of_shell)
    assert Credentials(settings, no_ring).find(PROVIDER) is not None


def file_of_a_provider() -> str:
    return f'[{PROVIDER}]\nkey = "beside"\n'


@pytest.mark.parametrize(
    "text",
    ['[s3]\nkey_id = "AKIA"\n', '[s3]\nkey = "x"\n', '[s3]\nkey_id = "A B"\nsecret = "s"\n'],
    ids=["half", "unknown-key", "blank"],
)
def test_a_pair_that_is_none_is_told_without_it(settings: Settings, text: str) -> None:
    write(settings.config / "credentials.toml", text)
    with pytest.raises(BadJobFile) as caught:
        pair(settings)
    assert "A B" not in caught.value.message


def test_a_providers_table_holds_no_pair(settings: Settings) -> None:
    write(settings.config / "credentials.toml", f'[{PROVIDER}]\nkey_id = "x"\n')
    with pytest.raises(BadJobFile):
        Credentials(settings, no_ring).find(PROVIDER)
