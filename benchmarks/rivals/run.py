"""Runs the checks on one application: ``python -m benchmarks.rivals.run MODULE ARGUMENT DIRECTORY REDIS``."""

import importlib
import json
import sys
import traceback
from functools import partial
from pathlib import Path

from benchmarks.rivals.checks import CHECKS, Subject
from benchmarks.rivals.serving import Gate, Place


def check(module: str, argument: str, place: Place) -> dict[str, bool | str | None]:
    """Return the verdict of each check: whether it passed, None if it does not apply, or the error."""
    rival = importlib.import_module(f"benchmarks.rivals.apps.{module}")
    gate = Gate()
    plant = getattr(rival, "plant", None)
    planted = None if plant is None else partial(plant, place)
    verdicts: dict[str, bool | str | None] = {}
    with rival.serve(rival.make(place, gate, argument)) as port:
        subject = Subject(port, gate, rival.COOKIE, planted, place.directory)
        for name, run in CHECKS.items():
            try:
                verdicts[name] = run(subject)
            except Exception as error:  # noqa: BLE001 - a rival's failure is a row of the table, not our end
                traceback.print_exc()
                verdicts[name] = repr(error)
    return verdicts


if __name__ == "__main__":
    _, module, argument, directory, redis_url = sys.argv
    print(json.dumps(check(module, argument, Place(Path(directory), redis_url))))
