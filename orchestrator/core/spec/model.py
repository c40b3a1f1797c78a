"""The base of every model in the job file, and the scalar types that the models share."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    model_validator,
)

from orchestrator.core.spec.tokens import show
from remote.contract import ContractError, check_path

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
NAME_MAX = 40  # leaves room for "gpujob-<ledger id>-…-<instance>" in a vendor's name field
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Model(BaseModel):
    """Frozen, refuses unknown keys; a key with nothing after its colon counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _check_name(text: str) -> str:
    if len(text) > NAME_MAX:
        raise ValueError(f"a name has at most {NAME_MAX} characters, this has {len(text)}")
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            "a name is made of a-z, 0-9 and -, and begins with a letter or digit"
            f"; {show(text)} is not"
        )
    return text


def _check_variable(text: str) -> str:
    if not re.fullmatch(VARIABLE_PATTERN, text):
        raise ValueError("a variable's name is made of letters, digits and _")
    if text.startswith("GPUJOB_"):
        raise ValueError("names that begin with GPUJOB_ are set by gpujob itself")
    return text


def below_work_folder(text: str) -> str:
    """The normal form of a path that stays below the run's work folder, else ValueError."""
    if text.startswith(("/", "~")):
        raise ValueError("must be relative to the work folder, not absolute")
    return check_parts(text)


def check_parts(text: str) -> str:
    """The normal form of a POSIX path without `..`; absolute or relative; else ValueError."""
    normal = str(PurePosixPath(text))
    if ".." in PurePosixPath(text).parts:
        raise ValueError("must not hold '..': it would leave the work folder")
    if normal in (".", "/"):
        raise ValueError("must name something below the work folder")
    try:
        check_path(normal.lstrip("/"))
    except ContractError as error:
        raise ValueError(
            "is not a usable path: backslash, line break or a part too long"
        ) from error
    return normal


def _check_some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _form(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "word"


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Whole = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
WholeOrZero = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Amount = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
AmountOrZero = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, AfterValidator(_check_some_text), Field(json_schema_extra={"minLength": 1})]
Name = Annotated[
    str,
    AfterValidator(_check_name),
    Field(json_schema_extra={"pattern": NAME_PATTERN, "maxLength": NAME_MAX}),
]
Variable = Annotated[
    str, AfterValidator(_check_variable), Field(json_schema_extra={"pattern": VARIABLE_PATTERN})
]
WorkPath = Annotated[str, AfterValidator(below_work_folder)]
# Chooses between members tagged "word" and "mapping", so that one of them reports, not both.
WORD_OR_MAPPING = Discriminator(_form)


def one_or_many(item: Any) -> BeforeValidator:
    """Lets a field that holds a tuple of `item` be written as one word without brackets."""
    return BeforeValidator(_listed, json_schema_input_type=item | list[item])
