"""The file that a command writes a result to."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from serve.cli.console import print_error, print_line, print_note
from serve.client import Answer
from serve.media import EXTENSIONS

STANDARD_OUTPUT = Path("-")


def fail(*lines: str, status: int = 1) -> NoReturn:
    """Print errors and exit with ``status``."""
    for line in lines:
        print_error(line)
    raise typer.Exit(status)


def accepted_by(output: Path) -> str:
    """Return the media type for a file to write; exit with 2 if its extension is unknown."""
    if output == STANDARD_OUTPUT:
        return "*/*"
    extension = output.suffix.lower().lstrip(".").replace("jpeg", "jpg")
    if not extension:
        return "*/*"
    media_types = {known: media_type for media_type, known in EXTENSIONS.items()}
    if extension not in media_types:
        known_extensions = ", ".join(f".{known}" for known in media_types)
        fail(f"{output}: unknown extension .{extension}; use one of {known_extensions}", status=2)
    return media_types[extension]


def require_writable(output: Path) -> None:
    """Exit with 2 if a file cannot be written."""
    if output == STANDARD_OUTPUT:
        return
    try:
        output.stat()
    except FileNotFoundError:
        pass  # the usual case
    except OSError as e:  # its name is too long, or its folder cannot be read
        fail(f"{output} cannot be written: {e.strerror}", status=2)
    if output.is_dir():
        fail(f"{output} is a folder: name a file in it", status=2)
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        fail(f"{output} cannot be written: its folder must exist and be writable", status=2)


def write_result(answer: Answer, path: Path, *, endpoint: str) -> None:
    """Write a result, and print its headers and warnings; exit with 1 if it cannot be written."""
    if path == STANDARD_OUTPUT:
        _write_standard_output(answer.data)
    else:
        try:
            path.write_bytes(answer.data)
        except OSError as e:
            fail(f"{path} cannot be written: {e.strerror}")
    # What is said about the result must not mix with the result.
    say = print_note if path == STANDARD_OUTPUT else print_line
    for header, value in answer.headers.items():
        if header.startswith("x-") or header == "server-timing":
            say(f"{header}: {value}")
    for field in filter(None, answer.headers.get("x-ignored-fields", "").split(", ")):
        from serve.http.endpoints import hint_for

        _warn(f"/{endpoint} ignored the field `{field}`{hint_for(endpoint, field)}")
    if (accepted := accepted_by(path)) not in ("*/*", answer.media_type):
        _warn(f"{path} contains {answer.media_type}, not {accepted}: the format is chosen when the job is made")
    say(f"{path}: {len(answer.data)} bytes in {answer.seconds:.1f} s")


def _write_standard_output(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the reader has had enough, and needs no message
    except OSError as e:
        # What is still buffered would fail once more when Python ends.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it is open until Python ends)
        fail(f"standard output cannot be written: {e.strerror}")


def _warn(text: str) -> None:
    print_note(f"warning: {text}", style="yellow")
