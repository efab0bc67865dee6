"""Reads the header of a safetensors file, without its tensors and without a model library.

The header is a length in 8 bytes and so much JSON: for each tensor its dtype, its shape and where
its bytes are, and text that the writer wanted to keep.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_BYTES = 64 * 2**20
"""The largest header that is read. Those of models with thousands of tensors have a few MB."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about its content."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    """By the names of the tensors, such as `BF16`."""
    metadata: Mapping[str, str]
    nbytes: int
    """The bytes that the whole file must have."""


def read_header(stream: BinaryIO) -> Header:
    """Return the header of the file that ``stream`` is at the beginning of.

    Raises ``ValueError`` with a reason if it is not a safetensors file.
    """
    start = stream.read(8)
    if len(start) < 8:
        raise ValueError("it is shorter than a header")
    (length,) = struct.unpack("<Q", start)
    if not 2 <= length <= MAX_BYTES:
        raise ValueError("it does not begin with the length of a header")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("its header is cut off")
    try:
        content = json.loads(text)
        metadata = content.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in content.values()), default=0)
        return Header(
            shapes={name: tuple(int(side) for side in entry["shape"]) for name, entry in content.items()},
            dtypes={name: str(entry["dtype"]) for name, entry in content.items()},
            metadata=_texts(metadata),
            nbytes=8 + length + int(end),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ValueError("its header is damaged") from None


def _texts(metadata: Any) -> dict[str, str]:
    return {str(name): text for name, text in metadata.items() if isinstance(text, str)}
