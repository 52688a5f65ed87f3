from __future__ import annotations

from runsc.checks.findings import bad, good, is_fit, note, table


def test_only_what_is_bad_makes_a_machine_unfit() -> None:
    assert is_fit([good("a", "x"), note("b", "y", "do")])
    assert not is_fit([good("a", "x"), bad("b", "y", "do")])


def test_advice_stands_below_its_finding() -> None:
    assert table([good("kvm", "there"), bad("cpu", "old", "buy")]) == (
        "ok   kvm         there\nBAD  cpu         old\n                 buy"
    )
