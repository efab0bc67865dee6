"""Accelerations that a caller requests: they trade exactness for speed."""
