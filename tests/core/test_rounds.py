"""Everybody's turn, once in a period."""

from gateway.rounds import Rounds


def test_everybody_has_one_turn_in_each_round_and_no_beat_has_them_all() -> None:
    members = {str(number): number for number in range(100)}
    rounds = Rounds(members, 30)
    for _ in range(3):
        shares = [rounds.share() for _ in range(30)]
        assert sorted(name for share in shares for name in share) == sorted(members)
        assert max(map(len, shares)) == 4


def test_few_members_have_one_turn_as_well() -> None:
    rounds = Rounds({"a": 1, "b": 2}, 30)
    assert [name for _ in range(60) for name in rounds.share()] == ["a", "b"] * 2


def test_who_has_gone_has_no_turn_and_who_has_come_has_one_in_the_next_round() -> None:
    members = dict.fromkeys("abc", 0)
    rounds = Rounds(members, 3)
    assert rounds.share() == ["a"]
    del members["b"]
    members["d"] = 0
    assert [rounds.share() for _ in range(5)] == [[], ["c"], ["a"], ["c"], ["d"]]


def test_a_period_shorter_than_a_beat_gives_everybody_a_turn_at_each() -> None:
    rounds = Rounds(dict.fromkeys("ab"), 0)
    assert [rounds.share(), rounds.share()] == [["a", "b"], ["a", "b"]]
