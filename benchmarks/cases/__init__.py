"""One benchmark a module: ``NAMES`` of its tables, and ``run(bench)``, which gives them."""
