"""How the deployments work together: a pipeline for each kind of request."""
