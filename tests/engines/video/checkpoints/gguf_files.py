"""Writes GGUF files."""

import gguf


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file of ``writer``."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
