"""Plots as SVG; runs in an environment of its own, for matplotlib is nobody else's business."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    curves, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
