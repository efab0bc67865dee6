"""The application that callers talk to: HTTP, pipelines, media, a client and the command line."""
