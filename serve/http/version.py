"""The version of this package."""

import importlib.metadata

VERSION = importlib.metadata.version("ryla-serve")
