"""Face engines: detect and identify, swap, restore, paste. Nothing here knows Ray."""
