"""The JSON Schema of a job file, for editors and for `gpujob schema`."""

from __future__ import annotations

import copy
from typing import Any

from orchestrator.core.spec.job import Job

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) with a description and a default for every key."""
    schema = Job.model_json_schema()
    schema["$schema"] = _DIALECT
    schema["title"] = "gpujob job file"
    definitions = schema["$defs"]
    partial = {f"{name}.InPhase": _optional(rule) for name, rule in definitions.items()}
    overlay = _optional({"properties": schema["properties"]})["properties"]
    phase = definitions["Phase"]
    phase["properties"] = {**_without(overlay, "phases"), **phase["properties"]}
    phase["additionalProperties"] = False
    definitions.update(_without(partial, "Phase.InPhase"))
    return schema


def _optional(rule: dict[str, Any]) -> dict[str, Any]:
    """A mapping laid over another may leave out what the other has, and then means that."""
    loose = copy.deepcopy(rule)
    loose.pop("required", None)
    for key in loose.get("properties", {}).values():
        key.pop("default", None)
    _redirect(loose)
    return loose


def _redirect(part: Any) -> None:
    """Point below mappings at their optional twins; an item of a list is always whole."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if key == "$ref":
            part[key] = f"{value}.InPhase"
        elif key not in ("items", "prefixItems") and isinstance(value, dict | list):
            _redirect(value)


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
