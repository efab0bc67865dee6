"""Generates the chart's values, schema, README and dashboards, and the plain manifests in k8s/."""
