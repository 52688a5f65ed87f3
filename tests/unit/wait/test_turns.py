"""Places that owners share: whose turn is next, and who gives one back."""

from __future__ import annotations

from sentry.wait.turns import Turn, Turns


class Hall:
    """Turns by name: `owner` and a number, and behind a slash the target."""

    def __init__(self, places: int, share: int) -> None:
        self.turns = Turns(places, share)
        self.came: list[str] = []

    def ask(self, *names: str) -> list[Turn]:
        return [self._ask(name) for name in names]

    def _ask(self, name: str) -> Turn:
        turn = self.turns.ask(name[0], lambda: self.came.append(name), name.partition("/")[2])
        if turn.has_come:
            self.came.append(name)
        return turn

    def end(self, turn: Turn) -> list[str]:
        """Who has come by that."""
        before = len(self.came)
        self.turns.end(turn)
        return self.came[before:]


def test_places_are_given_at_once_while_there_are_some() -> None:
    hall = Hall(places=3, share=3)
    hall.ask("a1/x", "b1/y", "a2/z", "b2/v")
    assert (hall.came, hall.turns.waiting) == (["a1/x", "b1/y", "a2/z"], 1)


def test_owner_takes_no_more_than_its_share_though_places_are_free() -> None:
    hall = Hall(places=5, share=2)
    hall.ask(*(f"a{i}" for i in range(1000)), "b0")
    assert hall.came == ["a0", "a1", "b0"]


def test_first_of_one_owner_comes_before_the_second_of_another() -> None:
    hall = Hall(places=1, share=1)
    first, b0, _b1, c0, d0 = hall.ask("a0", "b0", "b1", "c0", "d0")
    assert [hall.end(turn) for turn in (first, b0, c0, d0)] == [["b0"], ["c0"], ["d0"], ["b1"]]


def test_who_gives_up_waiting_is_passed_over() -> None:
    hall = Hall(places=1, share=1)
    first, second, _third = hall.ask("a1", "a2", "a3")
    assert hall.end(second) == []
    assert hall.end(first) == ["a3"]
    assert hall.turns.waiting == 0


def test_who_gives_up_a_place_that_has_just_come_leaves_it_to_the_next() -> None:
    hall = Hall(places=1, share=1)
    first, second, _third = hall.ask("a1", "b1", "c1")
    assert hall.end(first) == ["b1"]
    assert hall.end(second) == ["c1"]


def test_owner_at_its_share_comes_when_one_of_its_own_ends() -> None:
    hall = Hall(places=2, share=1)
    first, _waits, other = hall.ask("a1", "a2", "b1")
    assert hall.end(other) == []
    assert hall.end(first) == ["a2"]


def test_target_takes_places_only_while_more_are_free_than_it_has() -> None:
    hall = Hall(places=8, share=8)
    hall.ask(*(f"{owner}{number}/x" for number in range(100) for owner in "abc"))
    assert hall.came == ["a0/x", "b0/x", "c0/x", "a1/x"]
    hall.ask("a0/y", "d0/y", "d1/y", "a0/z", "d0/v", "d0/w")
    assert hall.came[4:] == ["a0/y", "d0/y", "a0/z", "d0/v"]


def test_those_of_a_target_with_room_pass_those_of_one_without() -> None:
    hall = Hall(places=3, share=3)
    first, _a1, _a2, other = hall.ask("a0/x", "a1/x", "a2/x", "b0/y")
    assert hall.came == ["a0/x", "a1/x", "b0/y"]
    hall.ask("b1/y", "c0/z")
    assert hall.end(other) == ["b1/y"]
    assert hall.end(first) == ["c0/z"]
