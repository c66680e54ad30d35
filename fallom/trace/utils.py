"""Not part of fallom any more: importing it says what to use."""

raise ImportError(
    "fallom.trace.utils was left out in fallom 0.3, which makes its ids itself. Use "
    "secrets.token_hex() for ids and datetime.now(timezone.utc).isoformat() for times.",
    name=__name__,
)
