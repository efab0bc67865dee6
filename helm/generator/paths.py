"""Where the generator reads and writes."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the repository."""
CHART = ROOT / "helm" / "ryla-serve"
"""The chart."""
PRESETS = ROOT / "serve" / "presets"
"""The Serve config files that the chart includes as presets."""
MANIFESTS = ROOT / "k8s"
"""The plain manifests, rendered from the chart."""
