"""values.yaml: the default of every value, with helm-docs' comments."""

import json
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from helm.generator.values import ChartValues

WIDTH = 100
HEAD = """\
# Generated from helm/generator/values.py by `make chart`; edit it there.
# README.md lists every value with its type and default.
"""


def values_yaml() -> str:
    """Return the text of values.yaml."""
    return HEAD + "\n".join(_lines(ChartValues(), "")) + "\n"


def _lines(model: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), field.alias or name
        if not indent:
            yield ""
        comment = f"-- {field.description}"
        prefix = f"{indent}# "
        yield from textwrap.wrap(comment, WIDTH, initial_indent=prefix, subsequent_indent=prefix)
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            default = json.dumps(value, default=lambda v: v.model_dump(by_alias=True))
            yield f"{indent}{key}: {default}"
