"""`ryla verify FILE`: says what marks a file carries, without a server."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from serve.cli.console import console, print_line
from serve.cli.output import fail


def verify(
    file: Annotated[Path, typer.Argument(help="Picture or video.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    trust_anchors: Annotated[
        Path | None, typer.Option(help="Root certificates (PEM) under which a manifest counts as trusted.")
    ] = None,
    watermark_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with the secret of a watermark to look for; repeat it for earlier secrets. Default: the published "
            "secret, which the demo uses."
        ),
    ] = None,
) -> None:
    """Say what marks a file carries, whether they are valid, and whether they say that AI made it.

    No service is needed. The exit status is 1 if a manifest is not valid.
    """
    report = _report(file, trust_anchors, watermark_key or [None])
    if as_json:
        print_line(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        console.print(_table(report))
        print_line(report["summary"])
    if (manifest := report["c2pa"]) is not None and manifest["state"] in ("invalid", "unreadable"):
        raise typer.Exit(1)


def _report(file: Path, trust_anchors: Path | None, watermark_keys: Sequence[Path | None]) -> dict[str, Any]:
    from serve.config import Limits
    from serve.media.errors import MediaError
    from serve.media.spool import Spool
    from serve.provenance.certificates import CertificateRefused
    from serve.provenance.verifier import Verifier
    from serve.provenance.watermark.secret import SecretRefused, load_secret
    from serve.provenance_settings import C2paSettings, VerifySettings

    limits = VerifySettings()
    try:
        media = Spool(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        verifier = Verifier(
            max_cpu_s=limits.max_cpu_s,
            max_memory_bytes=C2paSettings().max_memory_bytes,
            max_pixels=Limits().max_image_pixels,
            trust_anchors=trust_anchors,
            secrets=[load_secret(key, setting="--watermark-key") for key in watermark_keys],
        )
        try:
            return asyncio.run(verifier.verify(media))
        finally:
            verifier.close()
    except OSError as error:
        fail(f"{error.filename or file} cannot be read: {error.strerror}", status=2)
    except (CertificateRefused, SecretRefused) as error:
        fail(str(error), status=2)
    except MediaError as error:
        fail(f"{file}: {error}")


def _table(report: dict[str, Any]) -> Table:
    """Return the report as a table. Its texts come from the file and are not markup."""
    table = Table("mark", "what it says")
    for name in ("metadata", "aigc", "c2pa", "watermark"):
        values = report[name]
        table.add_row(name, Text("none" if values is None else "\n".join(_lines(values))))
    return table


def _lines(values: dict[str, Any]) -> list[str]:
    return [f"{name}: {_word(value)}" for name, value in values.items() if value not in ("", [], {}, None)]


def _word(value: object) -> str:
    if isinstance(value, list):
        return str(len(value)) if value and isinstance(value[0], dict) else ", ".join(map(str, value))
    return str(value)
