"""Counting who holds a commit, where threads ask in another order than they committed."""

from types import SimpleNamespace
from typing import Any, cast

from canister.replication.acks import Acks, Holders
from canister.replication.messages import Ack

OTHER = SimpleNamespace(address="other:1", node=b"B" * 8)
ME = b"A" * 8


class Members:
    """This node and another one."""

    address = "me:1"
    has_met_cluster = True

    def others(self) -> list[Any]:
        return [OTHER]

    def __contains__(self, address: str) -> bool:
        return address in ("me:1", "other:1")


def test_an_earlier_commit_that_is_asked_for_later_takes_nothing_back() -> None:
    store, runtime = SimpleNamespace(node=ME, sync=lambda: None), SimpleNamespace(send=lambda *_: None)
    acks = Acks(cast("Any", Members()), cast("Any", store), cast("Any", runtime), {})
    told: list[tuple[int, Holders]] = []
    for stamp in (10, 9):
        acks.wait(stamp, "all", lambda holders, stamp=stamp: told.append((stamp, holders)))
    assert told == []
    acks.on_ack(cast("Any", OTHER), Ack(10, cast("Any", ME), OTHER.address))
    assert sorted(stamp for stamp, _ in told) == [9, 10]
    assert all(sorted(holders.members) == ["me:1", "other:1"] for _, holders in told)
