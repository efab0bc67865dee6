"""The application: what a user talks to."""
