"""Several devices in one replica that run a forward pass together, each in a thread of its own."""
