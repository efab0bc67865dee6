"""The package `ryla` of an installed ryla-serve: what programs that call a service import."""
