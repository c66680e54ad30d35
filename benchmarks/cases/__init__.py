"""One benchmark a module: ``TABLES`` has its tables by name, each a function that makes one."""
