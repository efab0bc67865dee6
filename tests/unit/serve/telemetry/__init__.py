"""Tests of serve.telemetry."""
