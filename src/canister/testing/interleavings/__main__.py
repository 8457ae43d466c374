"""The command line: search cases and print what was visited."""

import argparse
import time

from canister.testing.interleavings import CASES, explore

_COLUMNS = "{:<14}{:>10}{:>7}{:>10}{:>8}{:>8}{:>9}"


def main() -> None:
    """Print a line for each case; whatever is broken ends the program with the way to it."""
    parser = argparse.ArgumentParser(prog="python -m canister.testing.interleavings", description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), help="search this one alone")
    parser.add_argument("--max-states", type=int, default=100_000, help="stop a case after that many")
    arguments = parser.parse_args()
    print(_COLUMNS.format("case", "states", "depth", "frontier", "finals", "steps", "seconds"))
    for name in [arguments.case] if arguments.case else CASES:
        begun = time.perf_counter()
        found = explore(CASES[name], arguments.max_states)
        seconds = f"{time.perf_counter() - begun:.1f}"
        print(_COLUMNS.format(name, *found, seconds), flush=True)


if __name__ == "__main__":
    main()
