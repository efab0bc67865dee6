"""Settings of provenance that contradict each other are refused, with what to set."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve.provenance_settings import AigcSettings, C2paSettings, ProvenanceSettings, WatermarkSettings

CERTIFICATE = {"certificate": "chain.pem"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**CERTIFICATE, "private_key": "key.pem"},
        {**CERTIFICATE, "signer": "company.kms:sign", "algorithm": "es256"},
        {"timestamp_url": "https://tsa.example.org/stamp"},
        {"timestamp_url": "http://ann:pass@[::1]:8080"},
    ],
)
def test_a_certificate_with_one_key_or_none_is_accepted(fields: dict[str, Any]) -> None:
    settings = C2paSettings.model_validate(fields)
    assert settings.has_certificate is ("certificate" in fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"private_key": "key.pem"}, "a key signs nothing without its certificate: set certificate"),
        ({"signer": "a:b", "algorithm": "es256"}, "a key signs nothing without its certificate"),
        (CERTIFICATE, "a certificate signs nothing without its key: set private_key or signer"),
        ({**CERTIFICATE, "private_key": "key.pem", "signer": "a:b"}, "set private_key or signer, not both"),
        ({**CERTIFICATE, "signer": "a:b"}, "set algorithm to that of the key"),
        ({**CERTIFICATE, "signer": "a:b", "algorithm": "rs256"}, "algorithm"),
        *[
            ({**CERTIFICATE, "algorithm": "es256", "signer": signer}, "must name a module and a function")
            for signer in ("", "sign", ":sign", "company:", "company.:sign", "company kms:sign", "a:b:c", "../a:b")
        ],
        *[
            ({"timestamp_url": url}, "timestamp_url")
            for url in ("", "tsa.example.org", "ftp://tsa.example.org", "http://", "file:///etc", "http://[::1", "https:tsa")
        ],
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_memory_bytes": 0}, "max_memory_bytes"),
    ],
)
def test_what_cannot_sign_is_refused_with_what_to_set(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        C2paSettings.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"enabled": True}, "set producer to its name or code"),
        ({"enabled": True, "producer": " \t"}, "set producer to its name or code"),
        ({"visible": True, "producer": "Example"}, "set enabled, too"),
        ({"enabled": True, "producer": 201 * "x"}, "at most 200 characters"),
    ],
)
def test_the_label_of_china_needs_a_provider(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AigcSettings.model_validate(fields)


@pytest.mark.parametrize("fields", [{"key_id": 16}, {"key_id": -1}, {"keys": 5 * ["old"]}])
def test_what_a_watermark_cannot_hold_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        WatermarkSettings.model_validate(fields)


@pytest.mark.parametrize(
    ("c2pa", "demo", "certificate"),
    [
        ({}, False, None),
        ({}, True, "test"),
        ({**CERTIFICATE, "private_key": "key.pem"}, True, "own"),
        ({**CERTIFICATE, "private_key": "key.pem"}, False, "own"),
        ({**CERTIFICATE, "private_key": "key.pem", "enabled": False}, True, None),
    ],
)
def test_callers_may_know_whose_certificate_signs(c2pa: dict[str, Any], demo: bool, certificate: str | None) -> None:
    published = ProvenanceSettings.model_validate({"c2pa": c2pa}).published(demo=demo)
    assert published["c2pa"] == {"certificate": certificate}


def test_callers_may_know_no_secret_path_or_address() -> None:
    settings = ProvenanceSettings.model_validate(
        {
            "metadata": {"enabled": False},
            "c2pa": {**CERTIFICATE, "private_key": "key.pem", "timestamp_url": "http://tsa.example.org"},
            "watermark": {"key": "secret", "keys": ["older"], "key_id": 9},
            "aigc": {"enabled": True, "visible": True, "producer": "Example"},
            "verify": {"open": True, "per_minute": 3},
        }
    )
    assert settings.published(demo=False) == {
        "metadata": False,
        "c2pa": {"certificate": "own"},
        "watermark": True,
        "aigc": {"metadata": True, "visible": True},
        "verify": {"needs_key": False, "per_minute": 3},
        "sources": {"c2pa": "kept", "metadata": "refused"},
    }
