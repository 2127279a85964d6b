"""From a frame to one commit."""
