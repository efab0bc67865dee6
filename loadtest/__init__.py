"""Load tests with Locust, which send the same sample requests as `ryla smoke`."""
