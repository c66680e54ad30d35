"""A folder of files as a source of configs and prompts: for the local cloud, and for ``file:`` URLs."""
