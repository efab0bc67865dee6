"""The configuration of Prometheus in docs/operations.md is one that Prometheus takes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROMTOOL = shutil.which("promtool")
TEXT = (ROOT / "docs" / "operations.md").read_text().partition("### Metrics")[2].partition("### Logs")[0]


def block(beginning: str) -> str:
    """Return the example that begins like this."""
    found = re.search(rf"^( *)```\w+\n({' *' + re.escape(beginning)}.*?)^\1```", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, beginning
    return re.sub(rf"^{found[1]}", "", found[2], flags=re.MULTILINE)


def test_the_namespace_is_one_that_the_dashboards_can_select() -> None:
    agents = yaml.safe_load(block("global:"))["scrape_configs"]
    service = yaml.safe_load(block("scrape_configs:"))["scrape_configs"]
    assert agents[0]["relabel_configs"] == [{"target_label": "namespace", "replacement": "ryla"}]
    assert service[0]["static_configs"][0]["labels"] == {"namespace": "ryla"}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
def test_prometheus_takes_the_configuration_with_the_alerts(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(block("global:"))
    command, check = block("sed ").strip().splitlines()
    source = command.split()[-3]
    subprocess.run(["bash", "-c", command.replace(source, str(ROOT / source))], cwd=tmp_path, check=True)
    rules = (tmp_path / "ryla-rules.yaml").read_text()
    assert "NAMESPACE" not in rules
    assert "RELEASE" not in rules
    done = subprocess.run(check.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{rules.count('alert:')} rules found" in done.stdout
