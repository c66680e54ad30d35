"""One file a client library: each passes calls on untouched and records a span of them."""
