"""A fleet in virtual time, with the package's own jitter and backoff: the servers' load stays smooth."""

from __future__ import annotations

from benchmarks.scale import Outage, batches_of_a_fleet, fetches_of_a_fleet

HOSTS = 600
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
    load = batches_of_a_fleet(HOSTS, 900, Outage(200, 500))
    mean = load.mean(60, 200)
    assert load.peak(500, 560) <= 3 * mean
    assert load.mean(260, 500) <= mean
