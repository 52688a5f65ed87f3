"""What sysctls say to the engine."""

from __future__ import annotations

from sentry.fs.proc import sysctl
from sentry.net.inet.tcp_tuning import NUMBERS, SIZES, memory_limits, read_settings
from sentry.net.tcp.settings import Settings

DEFAULTS = dict(line.split(" ", 1) for line in sysctl.DEFAULTS.strip().splitlines())


def test_defaults_are_those_that_proc_shows() -> None:
    settings = Settings()
    read_settings(settings, {})
    for name in NUMBERS:
        assert str(getattr(settings, name)) == DEFAULTS[f"net/ipv4/{name}"], name
    for name in SIZES:
        assert "\t".join(map(str, getattr(settings, name))) == DEFAULTS[f"net/ipv4/{name}"]
    assert settings.tcp_congestion_control == DEFAULTS["net/ipv4/tcp_congestion_control"]
    shown = [int(each) * 4096 for each in DEFAULTS["net/ipv4/tcp_mem"].split()]
    assert memory_limits({}) == (shown[1], shown[2])


def test_what_is_written_counts_within_reason() -> None:
    settings = Settings()
    read_settings(settings, {
        "net/ipv4/tcp_sack": "0", "net/ipv4/tcp_rmem": "1 2 3",
        "net/ipv4/tcp_wmem": "1\t2\t1000000000", "net/ipv4/tcp_max_tw_buckets": "1000000",
        "net/ipv4/tcp_retries2": "-5",
        "net/ipv4/tcp_congestion_control": "reno", "net/ipv4/tcp_slow_start_after_idle": "0",
        "net/ipv4/tcp_orphan_retries": "256",
    })  # fmt: skip
    assert (settings.tcp_slow_start_after_idle, settings.tcp_orphan_retries) == (0, 255)
    assert (settings.tcp_sack, settings.tcp_retries2) == (0, 0)
    assert settings.tcp_rmem == (4096, 4096, 4096) and settings.tcp_wmem == (4096, 4096, 1 << 25)
    assert settings.tcp_max_tw_buckets == 16384 and settings.tcp_congestion_control == "reno"
    assert memory_limits({"net/ipv4/tcp_mem": "1 2 3"}) == (8192, 12288)
