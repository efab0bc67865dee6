"""A client for the service."""

from serve.client.answers import Answer, CallFailed, Decoded, check_answer, decode
from serve.client.client import Client

__all__ = ["Answer", "CallFailed", "Client", "Decoded", "check_answer", "decode"]
