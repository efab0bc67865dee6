"""Media in and out: PyAV and Pillow. What is wrong with a file is a ``MediaError``."""
