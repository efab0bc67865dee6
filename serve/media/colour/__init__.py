"""The colours of pictures and videos: spaces, profiles, and one colour that is transparent."""
