"""The pure room: settings, errors, assignment, targeting, templates, records, outcomes; no I/O."""
