"""Plots as SVG, readable on light and on dark pages: one a table that has curves.

Runs in an environment of its own, for matplotlib is nobody else's business:
``plot.py folder results/span.json results/flood.json ...``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

# Greys and hues of middle lightness: they have contrast with white and with GitHub's dark grey alike.
INK = "#808890"
COLOURS = ("#e4572e", "#2e86de", "#27ae60", "#b07cd8", "#d4a017", "#17a2b8", "#c0668d", "#7f8c3d",
           "#5f7adb", "#a0785a", "#4caf93")  # fmt: skip
STEPS = 20  # of percentiles, for each decimal of the share
TITLES = {
    "models": "models.get, warm",
    "models_first": "models.get, first of a session",
    "prompts": "prompts.get, 5 variables",
    "span": "a span of 10 attributes",
    "flood": "spans at once from 8 threads",
    "durability": "what fsync costs",
    "processes": "spans from several processes at once",
    "snapshot": "snapshots of many prompts",
    "web": "a web request while a backlog is delivered",
    "scale": "requests a second of a fleet; out from 300 s to 900 s",
}


def main() -> int:
    """Draw what there is."""
    folder, files = Path(sys.argv[1]), map(Path, sys.argv[2:])
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "fallom",
            "font.family": "sans-serif",
            "font.size": 11,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    for file in files:
        name, lines = file.stem, json.loads(file.read_text())["curves"]
        if name == "profile":
            for path, counts in lines.items():
                _save(
                    profile(counts),
                    f"where the instructions of {path} go",
                    folder / f"profile-{path}.svg",
                )
            continue
        draw = {"processes": processes, "scale": fleet, "snapshot": snapshot}.get(name, latencies)
        _save(draw(lines), TITLES.get(name, name.replace("_", " ")), folder / f"{name}.svg")
    return 0


def _save(figure: plt.Figure, title: str, file: Path) -> None:
    figure.suptitle(title, color=INK, x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(file, transparent=True, metadata={"Date": None})
    plt.close(figure)


def latencies(lines: dict[str, list[float]]) -> plt.Figure:
    """Draw one line a contestant: which latency so many calls stay below, towards the tail."""
    figure, axes = plt.subplots(figsize=(8, 4.2))
    others = iter(COLOURS[1:] * 2)
    for name, ordered in lines.items():
        is_ours = "fallom**" in name
        is_floor = name.startswith("floor")
        colour = COLOURS[0] if is_ours else INK if is_floor else next(others)
        axes.plot(
            [10 ** (step / STEPS) for step in range(len(ordered))],
            ordered,
            color=colour,
            linewidth=2.6 if is_ours else 1.4,
            linestyle="--" if is_floor else "-",
            label=name.replace("**", "").replace("`", ""),
            zorder=3 if is_ours else 2,
        )
    axes.set(xscale="log", yscale="log", ylabel="us a call", xlabel="share of calls below")
    axes.set_xlim(1, max(2000.0, *(10 ** (len(each) / STEPS) for each in lines.values())))
    axes.set_xticks(
        [1, 2, 10, 100, 1000, 10000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    )
    axes.minorticks_off()
    _finish(axes)
    return figure


def processes(lines: dict[str, list[float]]) -> plt.Figure:
    """Draw throughput, cost and what was kept over the number of processes."""
    whats = ("spans a second", "CPU us a span", "kept %")
    figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.6))
    names = [key.partition(": ")[2] for key in lines if key.startswith("processes: ")]
    for axes, what in zip(all_axes, whats, strict=True):
        for number, name in enumerate(names):
            axes.plot(
                lines[f"processes: {name}"],
                lines[f"{what}: {name}"],
                color=COLOURS[number],
                linewidth=2.4 if "**" in name else 1.4,
                marker="o",
                markersize=4,
                label=name.replace("**", "").replace("`", ""),
            )
        counts = sorted({int(count) for name in names for count in lines[f"processes: {name}"]})
        axes.set(xscale="log", xlabel="processes", title=what)
        axes.title.set_color(INK)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(color=INK, alpha=0.2)
    all_axes[0].legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def fleet(lines: dict[str, list[float]]) -> plt.Figure:
    """Draw requests a second over time."""
    figure, all_axes = plt.subplots(len(lines), 1, figsize=(8, 1.9 * len(lines)), sharex=True)
    for number, (axes, (name, per_second)) in enumerate(zip(all_axes, lines.items(), strict=True)):
        axes.plot(per_second, color=COLOURS[number], linewidth=0.8)
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        ordered = sorted(per_second)
        axes.set_ylim(0, ordered[int(len(ordered) * 0.999)] * 1.15)
        axes.grid(color=INK, alpha=0.2)
    all_axes[-1].set_xlabel("seconds")
    return figure


def snapshot(lines: dict[str, list[float]]) -> plt.Figure:
    """Draw what a get, a refresh and the memory of a worker cost over the number of prompts."""
    sizes = lines.pop("prompts")
    figure, all_axes = plt.subplots(1, len(lines), figsize=(10, 3.2))
    for number, (axes, (name, values)) in enumerate(zip(all_axes, lines.items(), strict=True)):
        axes.plot(sizes, values, color=COLOURS[number], marker="o", markersize=4)
        axes.set(xscale="log", xlabel="prompts", title=name)
        axes.title.set_color(INK)
        axes.set_ylim(0, max(values) * 1.2)
        axes.grid(color=INK, alpha=0.2)
    return figure


def profile(counts: dict[str, dict[str, float]]) -> plt.Figure:
    """Draw bars of what functions do themselves: in C, coloured by library, and in Python."""
    figure, all_axes = plt.subplots(1, 2, figsize=(13, 4.6))
    for axes, (what, by_name) in zip(all_axes, counts.items(), strict=True):
        total = sum(by_name.values()) or 1
        groups = [
            name.rpartition("(")[2] if "(" in name else name.split(".")[0] for name in by_name
        ]
        colours = dict(zip(dict.fromkeys(groups), COLOURS * 2, strict=False))
        axes.barh(
            range(len(by_name)),
            [100 * count / total for count in by_name.values()],
            color=[INK if name == "all others" else colours[group]
                   for name, group in zip(by_name, groups, strict=True)],
        )  # fmt: skip
        axes.set_yticks(range(len(by_name)), by_name, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="%", title=f"{total:,.0f} {what}")
        axes.title.set_color(INK)
        axes.grid(color=INK, alpha=0.2, axis="x")
    return figure


def _finish(axes: plt.Axes) -> None:
    axes.grid(color=INK, alpha=0.2)
    axes.legend(
        frameon=False, labelcolor=INK, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )


if __name__ == "__main__":
    sys.exit(main())
