"""Following faces through a video, and choosing which of them are replaced."""
