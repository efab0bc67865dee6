"""Puts together the fields that OpenAI's packages send in parts of a form."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from serve.problems import invalid

REFERENCE = "input_reference"
"""The one object of the API itself that a form carries member by member."""
MAX_MEMBERS = 10
"""The members that it may have; the API knows two."""
_PART = re.compile(r"(\w{1,100})((?:\[\w{0,100}\])+)")


def whole_fields(sent: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the fields of a request, each under its own name; those that are null are left out.

    The packages call each item of an array `name[]`, and the members of an object `name[member]`.
    An array of several files can be sent by them in no other way. The members of ``REFERENCE`` are
    put together too. Other objects of the fields that are ``known`` are refused with a 422 problem:
    a form does not tell where one object of an array ends and the next one begins, nor what is a
    number. Unknown fields stay as they are.
    """
    fields = {name: value for name, value in sent.items() if value is not None}
    for part in list(fields):
        match = _PART.fullmatch(part)
        if match is None or match[1] not in known:
            continue
        name, place, value = match[1], match[2], fields.pop(part)
        is_member = name == REFERENCE and place.count("[") == 1
        if not is_member and place != "[]":
            raise invalid(name, "must be sent as JSON text in a form: in JavaScript, `JSON.stringify(...)` of the value")
        whole = fields.get(name)
        if not (whole is None or (is_member and isinstance(whole, dict))):
            raise invalid(name, f"was sent as `{name}` and as `{part}`; send one of them")
        if is_member:
            if whole is not None and len(whole) >= MAX_MEMBERS:
                raise invalid(name, f"has more than {MAX_MEMBERS} members; send a file, or `image_url` alone")
            fields[name] = {**(whole or {}), place.strip("[]"): value}
        else:
            fields[name] = value if isinstance(value, list) else [value]
    return fields
