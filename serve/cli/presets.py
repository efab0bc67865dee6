"""Serve config files: the presets of this package, and files of the user."""

import os
import tempfile
from pathlib import Path

import typer
import yaml

from serve.cli.console import print_error

IMPORT_PATH = "serve.app:build"
"""What a Serve config names as the import path of our application."""

PRESETS = Path(__file__).parents[1] / "presets"


def find_preset(name: str) -> Path:
    """Return a preset's file, or ``name`` itself if it is a file; exit with 2 if neither exists."""
    path = PRESETS / f"{name}.yaml"
    if os.path.isfile(path):  # Path.is_file would raise for a name that is too long
        return path
    if os.path.isfile(name):
        return Path(name)
    presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    print_error(f"no preset or file is named {name}; presets: {presets}")
    raise typer.Exit(2)


def listening_on(config: Path, host: str | None, port: int | None = None) -> Path:
    """Return a copy of a config file that listens on another address or port."""
    settings = yaml.safe_load(config.read_text())
    wanted = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    settings["http_options"] = {**(settings.get("http_options") or {}), **wanted}
    copy = Path(tempfile.mkdtemp(prefix="ryla-")) / config.name
    copy.write_text(yaml.safe_dump(settings))
    return copy


def address(config: Path) -> str:
    """Return the `host:port` at which a service with this config is reached from this machine."""
    options = yaml.safe_load(config.read_text()).get("http_options") or {}
    host = options.get("host", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{f'[{host}]' if ':' in host else host}:{options.get('port', 8000)}"


def url(config: Path) -> str:
    """Return the URL at which a service with this config is reached from this machine."""
    prefixes = [
        application.get("route_prefix") or "/"
        for application in yaml.safe_load(config.read_text())["applications"]
        if application.get("import_path") == IMPORT_PATH
    ]
    return f"http://{address(config)}{prefixes[0] if prefixes else '/'}".rstrip("/")
