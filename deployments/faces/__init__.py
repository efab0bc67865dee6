"""The face engine, which finds faces and swaps, restores and pastes them. It needs no Ray."""
