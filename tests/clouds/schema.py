"""Holds an emulator to the vendor's OpenAPI file, which is not ours to ship: looked for beside
the repository, or where GPUJOB_REFERENCE says. Without it nothing is checked, and that is said."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
METHODS = ("get", "post", "put", "patch", "delete")


class Schema:
    """`prefix` is what the file's server address adds to its paths; `amend` may add to the parsed
    document what the vendor published later."""

    def __init__(
        self,
        file: str,
        *,
        prefix: str = "",
        amend: Callable[[dict[str, Any]], None] = lambda document: None,
    ) -> None:
        self.violations: list[dict[str, str]] = []
        self.checked = 0
        self.document: dict[str, Any] = {}
        path = _find(file)
        self.note = f"checked against {file}" if path else f"skipped: {file} was not found"
        if path:
            self.document = json.loads(path.read_text())
            amend(self.document)
        paths = self.document.get("paths", {})
        self._paths = {_plain(prefix + name): item for name, item in paths.items()}

    def check(
        self, method: str, template: str, sent: Any, status: int, media: str, answer: Any
    ) -> None:
        """Record a reply that the document does not allow, and a request that was accepted
        although it does not fit the document. `sent` and `answer` are parsed JSON, or None."""
        operation = self._paths.get(_plain(template), {}).get(method.lower())
        if operation is None:
            return
        self.checked += 1
        where = f"{method} {template} {status}"
        if status < 300:
            self._compare(where, "request", self._request_schema(operation), sent)
        self._compare_reply(where, operation, status, media, answer)

    def to_json(self) -> dict[str, Any]:
        return {"note": self.note, "checked": self.checked, "violations": self.violations}

    def _request_schema(self, operation: Mapping[str, Any]) -> Any:
        content = self._resolve(operation.get("requestBody", {})).get("content", {})
        return content.get("application/json", {}).get("schema")

    def _compare_reply(
        self, where: str, operation: Mapping[str, Any], status: int, media: str, answer: Any
    ) -> None:
        replies = operation["responses"]
        reply = replies.get(str(status)) or (replies.get("default") if status >= 400 else None)
        if reply is None:
            self._report(where, "reply", f"status {status} is not documented")
            return
        content = self._resolve(reply).get("content", {})
        if content and media not in content:
            self._report(where, "reply", f"{media!r} is none of {sorted(content)}")
        elif media.endswith("json"):
            self._compare(where, "reply", content.get(media, {}).get("schema"), answer)

    def _compare(self, where: str, side: str, schema: Any, value: Any) -> None:
        if schema is None:
            return
        whole = {"allOf": [schema], "components": self.document["components"]}
        for error in Draft202012Validator(whole).iter_errors(value):
            self._report(where, side, f"{error.json_path}: {error.message[:300]}")

    def _report(self, where: str, side: str, what: str) -> None:
        self.violations.append({"where": where, "side": side, "what": what})

    def _resolve(self, item: Any) -> Any:
        while "$ref" in item:
            found: Any = self.document
            for name in item["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            item = found
        return item


def _find(file: str) -> Path | None:
    folders = [ROOT.parent / "shared" / "reference"]
    if named := os.environ.get("GPUJOB_REFERENCE"):
        folders.insert(0, Path(named))
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _plain(template: str) -> str:
    """A path template whose parameters have no names."""
    return re.sub(r"\{[^}]*\}", "{}", template)
