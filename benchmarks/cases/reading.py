"""Reading: which model a session gets, and prompts with their variables."""

from __future__ import annotations

from benchmarks.bench import Bench, Entry, expect
from benchmarks.table import Table

SHARE_MIN, SHARE_MAX = 0.35, 0.65  # of the first variant of two even ones, over 256 sessions


def models_warm(bench: Bench) -> Table:
    """Measure the call that an application makes for each request of a known session."""
    entries = [
        Entry("floor: hash, modulo, compare", "fallom", "floor", "models.get"),
        Entry(
            "**fallom** `models.get`", "fallom", "fallom_now", "models.get", environ=bench.ours()
        ),
        Entry("fallom 0.2.7, evaluation only", "fallom_0_2_7", "fallom_0_2_7", "models.get", 0.3),
        Entry("Statsig Rust core, gate", "statsig", "statsig", "models.gate", 0.5),
        Entry("Statsig Rust core, experiment", "statsig", "statsig", "models.get", 0.3),
        Entry("GrowthBook", "growthbook", "growthbook_flags", "models.get", 0.1),
        Entry("LaunchDarkly", "launchdarkly", "launchdarkly", "models.get", 0.1),
        Entry("Flagsmith", "flagsmith", "flagsmith_flags", "models.get", 0.1),
    ]
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, bench.sized(50_000, 5_000), bench.sized(10_000, 1_000))
        told = {entry.name: contestant.order("answers") for entry, contestant in pairs}
    by_rule = told[entries[0].name]["models"]
    for name, answers in told.items():
        given = answers["models"]
        share = given.count("one") / len(given)
        expect(set(given) == {"one", "two"}, f"{name} gave {set(given)}")
        expect(SHARE_MIN < share < SHARE_MAX, f"{name} gave the first variant {share:.0%}")
        if "fallom" in name:
            expect(given == by_rule, f"{name} does not follow the rule of assignment")
    ours = told[entries[1].name]
    expect(ours["written"] == 256, f"{ours['written']} exposures of 256 sessions")
    table = bench.table("models", "`models.get`, warm", rounds, entries[0].name)
    table.notes = [
        "256 sessions in turn, two variants of 50 %; every answer is checked against the rule, or, of "
        "peers with another hash, that both variants are given.",
        "fallom answers for a session that this process has seen lately from memory, so it can be below "
        "the floor, which hashes each time.",
        "Peers keep their users, contexts or objects of a session from call to call, which their own "
        "examples often do not.",
    ]
    return table


def models_first(bench: Bench) -> Table:
    """Measure the first call of a session, which records an exposure."""
    entries = [
        Entry("floor: the same and one append", "fallom", "floor", "models.first"),
        Entry("**fallom**, on disk", "fallom", "fallom_now", "models.first", environ=bench.ours()),
        Entry("fallom 0.2.7 as shipped", "fallom_0_2_7", "fallom_0_2_7", "models.first", 0.02),
        Entry("Statsig Rust core, in memory", "statsig", "statsig", "models.first", 0.3),
        Entry("GrowthBook, a callback", "growthbook", "growthbook_flags", "models.first", 0.1),
        Entry("LaunchDarkly, no event", "launchdarkly", "launchdarkly", "models.first", 0.2),
        Entry("Flagsmith, no event", "flagsmith", "flagsmith_flags", "models.first", 0.2),
    ]
    calls, singles = bench.sized(10_000, 1_500), bench.sized(10_000, 1_000)
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, calls, singles)
        ours = {entry.name: each for entry, each in pairs}[entries[1].name].order("answers")
    expected = calls // 20 + bench.repeats * (calls + singles)
    expect(ours["written"] == expected, f"{ours['written']} exposures of {expected} sessions")
    expect(not ours["dropped"], f"dropped: {ours['dropped']}")
    table = bench.table("models_first", "`models.get`, first of a session", rounds, entries[0].name)
    table.notes = ["Every exposure of fallom was read back from the spool and counted."]
    return table


def prompts(bench: Bench) -> Table:
    """Measure a prompt with five variables in two texts."""
    entries = [
        Entry("floor: pre-split join", "fallom", "floor", "prompts.get"),
        Entry(
            "**fallom** `prompts.get`", "fallom", "fallom_now", "prompts.get", environ=bench.ours()
        ),
        Entry(
            "**fallom** `prompts.get_ab`",
            "fallom",
            "fallom_now",
            "prompts.get_ab",
            environ=bench.ours(),
        ),
        Entry("fallom 0.2.7 `get`", "fallom_0_2_7", "fallom_0_2_7", "prompts.get", 0.3),
        Entry("fallom 0.2.7 `get_ab`", "fallom_0_2_7", "fallom_0_2_7", "prompts.get_ab", 0.3),
        Entry("langfuse, cached", "langfuse", "langfuse_sdk", "prompts.get", 0.2),
        Entry("jinja2, compiled", "queues", "queues", "prompts.get", 0.2),
    ]
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, bench.sized(50_000, 5_000), bench.sized(10_000, 1_000))
        told = {entry.name: contestant.order("answers") for entry, contestant in pairs}
    for name, answers in told.items():
        expect(answers == told[entries[0].name] or "jinja2" in name, f"{name} rendered {answers}")
    return bench.table("prompts", "`prompts.get`, 5 variables", rounds, entries[0].name)


TABLES = {"models": models_warm, "models_first": models_first, "prompts": prompts}
