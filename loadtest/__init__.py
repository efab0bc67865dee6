"""Load tests: Locust, with the payloads that the tests use."""
