"""The face engine: detect and identify, swap, restore, paste. Nothing here depends on Ray."""
