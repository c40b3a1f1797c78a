"""Which key opens a provider, and at which address: from the environment, a file of the user's, the
keyring, or what the last launch left for the daemon. A key is handed to its adapter and is never
shown."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.durable import make_folder, write_whole
from orchestrator.errors import BadJobFile, GpujobError, Missing, Refused
from orchestrator.settings import STORES, VENDORS, Pair, Settings

KEPT = "keys.toml"
PAIR = ("key_id", "secret", "token")
Tables = Mapping[str, Mapping[str, str]]
Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Key:
    """A provider's key and where it was found."""

    value: str = field(repr=False)
    source: str


class Credentials:
    """Keys and addresses by provider. A file is read again when it has changed.

    A verb believes the environment first. The daemon (`kept_first`) believes what was kept at
    launch, for it may have been started by a shell that knows nothing of the run.
    """

    def __init__(
        self,
        settings: Settings,
        keyring: Callable[[str], str | None],
        *,
        kept_first: bool = False,
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._kept_first = kept_first
        self._kept = _TomlFile(settings.state / KEPT, dict.fromkeys(VENDORS, ("key", "api_url")))
        own = {**dict.fromkeys(VENDORS, ("key",)), **dict.fromkeys(STORES, PAIR)}
        self._file = _TomlFile(settings.config / "credentials.toml", own)

    def find(self, provider: str) -> Key | None:
        """The key in force, None when there is none. Raises Missing for a file that others can
        read, BadJobFile for one that is wrong."""
        return self._find(provider, self._kept_first)

    def source(self, provider: str) -> str | None:
        """Where the key was found. Raises as `find`."""
        found = self.find(provider)
        return found.source if found else None

    def key(self, provider: str) -> str:
        """As `find`. Raises Refused, for the whole provider, when there is none."""
        found = self.find(provider)
        if found is None:
            variable = VENDORS[provider].key_variable
            raise Refused(
                f"there is no key for {provider} ({variable} is not set)",
                hint=f"nothing was rented; {self.advice(provider)}",
                provider_wide=True,
            )
        return found.value

    def advice(self, provider: str) -> str:
        """How to give a key."""
        return (
            f"export {VENDORS[provider].key_variable}=…, or write it to {self._file.path}"
            f' (mode 0600) below [{provider}] as key = "…"'
        )

    def url(self, provider: str) -> str:
        """Where the provider's API is."""
        return self._url(provider, self._kept_first)

    def pair(self, store: str) -> Pair | None:
        """The key pair for S3 in force, None when there is none. Raises as `find`."""
        return self._settings.pairs.get(store) or self._file_pair(store) or self._ring_pair(store)

    def pair_advice(self, store: str) -> str:
        """How to give a key pair."""
        key_id, secret, _ = STORES[store][0]
        return (
            f"export {key_id}=… and {secret}=…, or write them to {self._file.path} (mode 0600)"
            f' below [{store}] as key_id = "…" and secret = "…"'
        )

    def keep(self, providers: Collection[str], renting: Collection[str] = ()) -> None:
        """Leave for the daemon what is in force now for `providers`: the address, and the key
        where only this shell knows it.

        Raises GpujobError when that would cut off the `renting`, where a live run has instances:
        another account or API does not know them, and they would bill unseen."""
        if not providers:
            return
        before = self._kept.tables()
        after = {name: dict(table) for name, table in before.items()}
        for name in providers:
            if name in renting:
                self._check_same(name)
            after[name] = self._to_keep(name)
        if after != before:
            make_folder(self._settings.state)
            write_whole(self._kept.path, _toml(after).encode())

    def _find(self, provider: str, kept_first: bool) -> Key | None:
        kept, shell = self._kept_key, self._shell_key
        found = (
            (kept, self._file_key, self._ring_key, shell)
            if kept_first
            else (shell, self._file_key, self._ring_key, kept)
        )
        return next((key for look in found if (key := look(provider))), None)

    def _shell_key(self, provider: str) -> Key | None:
        value = self._settings.keys.get(provider)
        return _checked(value, VENDORS[provider].key_variable) if value else None

    def _kept_key(self, provider: str) -> Key | None:
        return self._kept.key(provider)

    def _file_key(self, provider: str) -> Key | None:
        return self._file.key(provider)

    def _ring_key(self, provider: str) -> Key | None:
        value = self._keyring(provider)
        return _checked(value, "the keyring") if value else None

    def _file_pair(self, store: str) -> Pair | None:
        table = self._file.tables().get(store)
        return _pair(table, str(self._file.path), store) if table else None

    def _ring_pair(self, store: str) -> Pair | None:
        table = {word: self._keyring(f"{store}-{word}") or "" for word in PAIR}
        return _pair(table, "the keyring", store) if table["key_id"] else None

    def _url(self, provider: str, kept_first: bool) -> str:
        shell = self._settings.urls.get(provider)
        kept = self._kept.tables().get(provider, {}).get("api_url")
        first, second = (kept, shell) if kept_first else (shell, kept)
        return (first or second or VENDORS[provider].url).rstrip("/")

    def _to_keep(self, provider: str) -> dict[str, str]:
        table = {"api_url": self.url(provider)}
        key = self.find(provider)
        if key and key.source in (VENDORS[provider].key_variable, str(self._kept.path)):
            table["key"] = key.value
        return table

    def _check_same(self, provider: str) -> None:
        daemons, ours = self._find(provider, True), self._find(provider, False)
        same_key = daemons is None or ours is None or daemons.value == ours.value
        if same_key and self._url(provider, True) == self._url(provider, False):
            return
        vendor = VENDORS[provider]
        what = vendor.url_variable if same_key else "the key"
        raise GpujobError(
            f"{what} for {provider} is not the one that live runs rent with; nothing was rented,"
            " for those instances would bill where nobody looks",
            hint=f"unset {vendor.key_variable} and {vendor.url_variable}, or wait until `gpujob ps`"
            f" shows no live run; a new key of the same account goes into {self._kept.path}",
        )


class _TomlFile:
    """A file of keys that its owner alone may read: a table for each provider."""

    def __init__(self, path: Path, allowed: Mapping[str, tuple[str, ...]]) -> None:
        self.path = path
        self._allowed = allowed
        self._seen: Signature | None = None
        self._tables: Tables = {}

    def key(self, provider: str) -> Key | None:
        value = self.tables().get(provider, {}).get("key")
        return _checked(value, str(self.path)) if value else None

    def tables(self) -> Tables:
        signature = self._signature()
        if signature != self._seen:
            self._tables = self._read() if signature else {}
            self._seen = signature
        return self._tables

    def _signature(self) -> Signature | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None
        if found.st_mode & 0o077:
            raise Missing(
                f"{self.path} holds keys, and others than its owner may read it",
                hint=f"chmod 600 {self.path}",
            )
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> Tables:
        # Whatever is wrong is told without a word of the file: it may be a part of a key.
        try:
            tables = tomllib.loads(self.path.read_text())
        except OSError as error:
            raise self._unreadable(error) from None
        except ValueError as error:
            line = re.search(r"line \d+", str(error))
            where = f" ({line[0]})" if line else ""
            raise BadJobFile(f"{self.path} is not TOML{where}", hint=self._like()) from None
        for name, table in tables.items():
            if not self._is_table(table, self._allowed.get(name, ())):
                raise BadJobFile(f"{self.path} holds something else", hint=self._like())
        return tables

    def _is_table(self, table: object, allowed: tuple[str, ...]) -> bool:
        return (
            bool(allowed)
            and isinstance(table, dict)
            and all(key in allowed and isinstance(value, str) for key, value in table.items())
        )

    def _unreadable(self, error: OSError) -> Missing:
        return Missing(
            f"{self.path} cannot be read: {error.strerror}", hint=f"chmod 600 {self.path}"
        )

    def _like(self) -> str:
        return 'it has to be tables such as [runpod] key = "…"; of ' + ", ".join(VENDORS)


def _checked(value: str, source: str) -> Key:
    if not re.fullmatch(r"[!-~]+", value):
        raise BadJobFile(f"the key in {source} holds a blank or a letter that no key has")
    return Key(value, source)


def _pair(table: Mapping[str, str], source: str, store: str) -> Pair:
    key_id, secret, token = (table.get(word, "") for word in PAIR)
    if not key_id or not secret:
        raise BadJobFile(f"{source} has half a key pair for {store}: it needs key_id and secret")
    return Pair(
        _checked(key_id, source).value,
        _checked(secret, source).value,
        _checked(token, source).value if token else "",
        source,
    )


def _toml(tables: Tables) -> str:
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(table[key])}\n" for key in sorted(table))
        for name, table in sorted(tables.items())
    )
