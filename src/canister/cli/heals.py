"""``canister heal-report``: what the latest heals did, and when all members were last equal."""

from argparse import Namespace
from typing import Any

from canister.agent.control import Heals
from canister.cli.command import Command, declare_json
from canister.cli.opening import open_existing
from canister.cli.output import print_json, show_id, utc
from canister.clock import SECOND, to_datetime
from canister.codec import decode_id, slot_key
from canister.replication.healing import Difference, HealReport
from canister.texts import shown

_SHOWN = 20
"""Sessions listed for each heal; ``--json`` has all that were kept."""


def _run(options: Namespace) -> None:
    with open_existing(options) as canister:
        heals = canister.node.heals()
    if options.json:
        print_json(_facts(heals))
        return
    last = utc(to_datetime(heals.last_equal)) if heals.last_equal else "not yet since the agent started"
    print(f"all members last found equal: {last}")
    for report in heals.reports:
        _print(report)
    if not heals.reports:
        print("no heal since the agent started")


def _print(report: HealReport) -> None:
    apart = (report.linked - report.parted) / SECOND
    took = (report.healed - report.linked) / SECOND
    print(
        f"\n{utc(to_datetime(report.healed))}  {report.peer}, apart for {apart:.1f} s, healed in {took:.2f} s"
    )
    print(f"  {report.summary()}")
    for difference in report.differences[:_SHOWN]:
        name = show_id(decode_id(difference.session))
        print(f"  {name}: {difference.outcome}{_keys(difference)}: {difference.why}")
    hidden = len(report.differences[_SHOWN:]) + report.more
    if hidden:
        print(f"  and {hidden} more")


def _keys(difference: Difference) -> str:
    parts = [
        f"{word} {', '.join(shown(str(slot_key(slot))) for slot in slots)}"
        for word, slots in (("took", difference.taken), ("kept", difference.kept))
        if slots
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _facts(heals: Heals) -> dict[str, Any]:
    return {
        "last_equal": utc(to_datetime(heals.last_equal)) if heals.last_equal else None,
        "heals": [
            {
                "peer": report.peer,
                "parted": utc(to_datetime(report.parted)),
                "linked": utc(to_datetime(report.linked)),
                "healed": utc(to_datetime(report.healed)),
                "more": report.more,
                "equal": report.equal,
                "peer_lacked": report.peer_lacked,
                "sessions": [
                    {
                        "id": decode_id(difference.session),
                        "outcome": difference.outcome,
                        "why": difference.why,
                        "taken": [slot_key(slot) for slot in difference.taken],
                        "kept": [slot_key(slot) for slot in difference.kept],
                    }
                    for difference in report.differences
                ],
            }
            for report in heals.reports
        ],
    }


COMMANDS = (Command("heal-report", "tell what the latest heals did, and why", declare_json, _run),)
