"""How the deployments work together: one pipeline for each kind of request, from a request to a file."""
