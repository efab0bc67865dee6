"""The HTTP side: routes, request bodies, responses and problems."""
