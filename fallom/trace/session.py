"""Not a module of fallom any more: importing it says what to use."""

raise ImportError(
    "fallom.trace.session is a function, as in earlier releases; its module was left out in fallom 0.3. "
    "Import session and FallomSession from fallom.",
    name=__name__,
)
