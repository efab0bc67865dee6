"""Webhooks on completion: their messages, and the calls that deliver them."""
