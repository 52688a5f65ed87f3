from __future__ import annotations

from tests.order import a_third, arranged

USUAL_S = 120


def arrange(limits: list[int], machines: frozenset[int], workers: int) -> list[int]:
    """Tests are the indices of their limits."""
    return arranged(range(len(limits)), limits.__getitem__, machines.__contains__, USUAL_S, workers)


def pieces(tests: list[int], workers: int) -> list[list[int]]:
    """As pytest-xdist cuts them."""
    found = []
    for number in range(workers, 0, -1):
        size = len(tests) // number
        found.append(tests[:size])
        tests = tests[size:]
    return found


def test_long_tests_are_dealt_to_all_workers_longest_first() -> None:
    limits = [120] * 20
    limits[7], limits[11], limits[19] = 300, 900, 600

    dealt = pieces(arrange(limits, frozenset(), 3), 3)

    assert [piece[0] for piece in dealt] == [11, 19, 7]
    assert sorted(dealt[0] + dealt[1] + dealt[2]) == list(range(20))


def test_machines_are_the_first_workers_the_rest_the_others() -> None:
    limits = [120] * 20
    limits[3], limits[4], limits[5] = 900, 300, 600

    dealt = pieces(arrange(limits, frozenset({3, 18}), 3), 3)

    assert [piece[:2] for piece in dealt] == [[3, 18], [5, 7], [4, 13]]


def test_one_worker_begins_with_the_machines_and_all_that_takes_long() -> None:
    assert arrange([120, 300, 900, 120], frozenset({3}), 1) == [3, 2, 1, 0]


def test_more_long_tests_than_a_piece_holds_are_all_kept() -> None:
    for workers in (1, 2, 3, 8):
        assert sorted(arrange([300] * 9, frozenset(range(8)), workers)) == list(range(9))


def test_thirds_of_like_tests_make_all_of_them_and_others_always_run() -> None:
    tests = list(range(20))

    def is_alike(test: int) -> bool:
        return test % 2 == 1

    thirds = [a_third(tests, is_alike, third) for third in range(3)]

    for runs, left_out in thirds:
        assert sorted(runs + left_out) == tests
        assert [test for test in runs if not is_alike(test)] == list(range(0, 20, 2))
    odd = [test for runs, _ in thirds for test in runs if is_alike(test)]
    assert sorted(odd) == list(range(1, 20, 2))
    assert a_third(tests, is_alike, 4) == thirds[1]
