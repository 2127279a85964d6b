"""The one life of a cluster: its states, and the rounds that move it on."""
