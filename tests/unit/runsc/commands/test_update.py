from __future__ import annotations

import pytest

from runsc.cgroups.guest import guest_memory, visible_cpus
from runsc.commands.update import size
from runsc.errors import RuntimeFailure
from runsc.oci.resources import decode, parse_list


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        ("100KiB", 100 << 10),
        ("2 gb", 2 << 30),
    ],
)
def test_size_takes_what_runc_takes(text: str, value: int) -> None:
    assert size(text, "memory") == value


@pytest.mark.parametrize("text", ["", "m", "-2", "1x", "1ib", "1e3", "0x10", "1 0"])
def test_size_refuses_the_rest(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid value for memory"):
        size(text, "memory")


def test_guest_memory_leaves_room_for_the_sandbox() -> None:
    for limit in (1 << 20, 64 << 20, 256 << 20, 16 << 30):
        assert limit // 4 <= guest_memory(limit) < limit
    assert guest_memory(1 << 30) > 850 << 20


def test_visible_cpus_are_those_of_the_cpuset() -> None:
    def shown(cpus: str) -> int:
        return visible_cpus({0, 1, 2, 3}, decode({"cpu": {"cpus": cpus}}))

    assert visible_cpus({0, 1}, None) == 2
    assert (shown("0-1"), shown("1,3"), shown("2-9"), shown("")) == (2, 2, 2, 4)
    assert (shown("all"), shown("7")) == (4, 4)
    assert parse_list("0-2,7") == {0, 1, 2, 7}
