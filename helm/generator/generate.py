"""Write the chart's generated files and the plain manifests, or check that they are up to date."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from helm.generator.dashboards import DASHBOARDS, Dashboard
from helm.generator.grafana import grafana
from helm.generator.manifests import VALUES, dump, manifests
from helm.generator.paths import CHART, MANIFESTS, PRESETS, ROOT
from helm.generator.pods import WorkerGroup
from helm.generator.schema import values_schema
from helm.generator.values_file import values_yaml


def readme() -> str:
    """Return the chart's README, as helm-docs renders it from README.md.gotmpl."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / "ryla-serve"
        shutil.copytree(CHART, chart)
        (chart / "values.yaml").write_text(values_yaml())
        command = ["helm-docs", "--chart-search-root", folder, "--log-level", "error", "--sort-values-order", "file"]
        subprocess.run(command, check=True)
        return (chart / "README.md").read_text()


def _dashboard(dashboard: Dashboard) -> str:
    return json.dumps(grafana(dashboard), indent=1) + "\n"


def _worker_group() -> str:
    return "# The defaults of an extra worker group.\n" + dump([WorkerGroup().model_dump(by_alias=True)])


def _schema() -> str:
    return json.dumps(values_schema(), indent=1) + "\n"


def chart_files() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Yield each generated file of the chart and the function that returns its text.

    A file comes after those that its function reads.
    """
    for preset in sorted(PRESETS.glob("*.yaml")):
        yield CHART / "files" / "presets" / preset.name, preset.read_text
    for dashboard in DASHBOARDS:
        yield CHART / "files" / "dashboards" / f"{dashboard.name}.json", partial(_dashboard, dashboard)
    yield CHART / "files" / "worker-group.yaml", _worker_group
    yield CHART / "values.yaml", values_yaml
    yield CHART / "values.schema.json", _schema
    yield CHART / "README.md", readme


def all_files() -> Mapping[Path, str]:
    """Return path -> expected text of every generated file, with manifests of the chart on disk."""
    files = {path: text() for path, text in chart_files()}
    for name in VALUES:
        files |= {MANIFESTS / name / file: text for file, text in manifests(name).items()}
    return files


def stale() -> list[Path]:
    """Return the generated files that are missing, outdated or no longer generated."""
    expected = all_files()
    wrong = [path for path, text in expected.items() if not path.is_file() or path.read_text() != text]
    return wrong + [path for name in VALUES for path in (MANIFESTS / name).glob("*") if path not in expected]


def write() -> None:
    """Write every generated file: the chart first, since the manifests are rendered from it."""
    for path, text in chart_files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text())
    for name in VALUES:
        shutil.rmtree(MANIFESTS / name, ignore_errors=True)
        (MANIFESTS / name).mkdir(parents=True)
        for file, content in manifests(name).items():
            (MANIFESTS / name / file).write_text(content)


def main() -> None:
    """Run the command line interface."""
    parser = argparse.ArgumentParser(prog="python -m helm.generator", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a file is outdated")
    if not parser.parse_args().check:
        write()
        return
    if wrong := stale():
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is outdated: run `make chart`", file=sys.stderr)
        raise SystemExit(1)
