"""The exit codes, in the words that each command's help ends with."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT_CODES", "EXIT_INTERRUPTED", "EXIT_LED", "EXIT_USAGE", "EXIT_WRONG"]

EXIT_WRONG: Final = 1
EXIT_USAGE: Final = 2
EXIT_LED: Final = 3
EXIT_INTERRUPTED: Final = 130

EXIT_CODES: Final = """\b
Exit codes:
  0  done
  1  done, and something is wrong (the output says what)
  2  the command line or a setting cannot be used
  130  interrupted"""
