"""The flusher: the one process per host that talks to the network."""
