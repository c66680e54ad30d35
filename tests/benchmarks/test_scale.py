"""A fleet in virtual time, with the package's own jitter and backoff: the servers' load stays smooth."""

from __future__ import annotations

from benchmarks.report import ROOT
from benchmarks.scale import Outage, fetches_of_a_fleet, spans_of_a_fleet
from fallom._core import outcome
from fallom._core.settings import Settings
from fallom._flusher import ship, sync, window

PAGE = ROOT / "benchmarks/scale.md"
HOSTS = 600
LANES = 60
NEVER = Outage(-2, -1)


def test_no_herd_comes_back_to_the_config_api_after_an_outage() -> None:
    load = fetches_of_a_fleet(HOSTS, 900, Outage(200, 500))
    mean = load.mean(60, 200)
    assert abs(mean - 3 * HOSTS / 30) < 3
    assert load.peak(500, 560) <= 3 * mean
    assert load.peak(560, 900) <= 3 * mean
    assert load.mean(600, 900) <= 1.1 * mean


def test_an_outage_is_not_made_worse_by_retries_for_long() -> None:
    load = fetches_of_a_fleet(HOSTS, 500, Outage(200, 500, is_silent=True))
    mean = load.mean(60, 200)
    assert load.peak(200, 260) <= 5 * mean
    assert load.mean(260, 500) <= 2.5 * mean


def test_hosts_that_were_started_in_the_same_second_drift_apart() -> None:
    load = fetches_of_a_fleet(HOSTS, 960, NEVER, starts_within_s=0)
    mean = load.mean(60, 900)
    assert load.peak(0, 1) == 3 * HOSTS
    assert load.peak(600, 900) <= 3 * mean


def test_no_herd_of_batches_comes_to_the_collectors_after_an_outage() -> None:
    requests, spans = spans_of_a_fleet(LANES, 900, Outage(200, 500))
    mean = requests.mean(60, 200)
    assert requests.peak(500, 560) <= 3 * mean
    assert requests.mean(260, 500) <= mean
    assert abs(spans.mean(60, 200) - 60 * LANES) < LANES


def test_what_an_outage_held_up_is_delivered_within_the_longest_pause_after_it() -> None:
    _, spans = spans_of_a_fleet(LANES, 900, Outage(200, 500))
    recorded = 60 * LANES * 900
    assert 0.99 * recorded < sum(spans.per_second) <= recorded
    after_s = 500 + outcome.BACKOFF_MAX_S + 5
    assert spans.peak(after_s, 900) <= 2 * spans.mean(60, 200)


def test_the_page_says_what_the_package_does() -> None:
    text = " ".join((PAGE.read_text(encoding="utf-8")).split())
    settings = Settings()
    for said in (
        f"default interval of {settings.sync_interval_s:.0f} s",
        f"`hosts x 3 / {settings.sync_interval_s:.0f}` requests a second",
        f"one a tick of {ship.TICK_S:g} s",
        f"up to {ship.LaneLimits().items_max:,} records",
        f"{window.BATCHES_MAX} at a time",
        f"limit of {settings.spool_bytes_max >> 20} MiB",
        f"within {settings.sync_interval_s * sync.BACKOFF_FIRST_SHARE:g} s",
        f"after at most {outcome.BACKOFF_BASE_S:.0f}, "
        f"{2 * outcome.BACKOFF_BASE_S:.0f}, {4 * outcome.BACKOFF_BASE_S:.0f}",
        f"up to {outcome.BACKOFF_MAX_S:.0f} s, with full jitter",
        f"with {100 * sync.JITTER:.0f} % of jitter",
    ):
        assert said in text, said
