"""Holds docs/explanation/consistency.md to the tests: whatever it names is there, and no rule is left out."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "explanation" / "consistency.md").read_text("utf-8")
PROMISES = re.findall(r"^\| \*\*(.+?)\*\*.* \| (.+) \|$", TEXT, re.MULTILINE)
NAMED = re.compile(r"`(?P<file>[a-z_/]+(?:\.py|/))?(?:::(?P<test>\w+))?(?:\[(?P<story>\w+)\])?`")
INVARIANTS = [f"I{number}" for number in range(1, 13)]
RULES = [f"R{number}" for number in range(1, 28)]
SOURCES = sorted([*TESTS.rglob("*.py"), *(TESTS.parent / "src").rglob("*.py")])


def names(shown_by: str) -> list[tuple[str, str | None, str | None]]:
    """Return file, test and story of all that a cell names; a file that is left out is the last one."""
    found: list[tuple[str, str | None, str | None]] = []
    file, test = "", None
    for match in NAMED.finditer(shown_by):
        file = match["file"] or file
        test = match["test"] or (test if match["story"] else None)
        found.append((file, test, match["story"]))
    return found


@pytest.mark.parametrize(("promise", "shown_by"), PROMISES, ids=[promise[:40] for promise, _ in PROMISES])
def test_every_promise_names_tests_that_exist(promise: str, shown_by: str) -> None:
    named = names(shown_by)
    assert named or "simulated" in shown_by, f"nothing shows {promise!r}"
    for file, test, story in named:
        path = TESTS.parent / file if file.startswith("src/") else TESTS / file
        assert file, (promise, test)
        assert path.exists(), (promise, file)
        if test is not None:
            assert re.search(rf"^ *(async )?def {test}\(", path.read_text("utf-8"), re.MULTILINE), (
                file,
                test,
            )
        if story is not None:
            stories = "".join(each.read_text("utf-8") for each in path.parent.glob("*.py"))
            assert re.search(rf"^def {story}\(", stories, re.MULTILINE), (promise, story)


def test_everything_in_the_table_of_promises_was_read() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "Shown by" not in line]
    assert len(PROMISES) == len(rows) > len(RULES)


@pytest.mark.parametrize("labels", [INVARIANTS, RULES], ids=["invariants", "rules"])
def test_every_invariant_and_every_rule_of_the_protocol_is_named(labels: list[str]) -> None:
    """Each one has its row."""
    assert [promise for promise, _ in PROMISES if promise in labels] == labels


def test_no_other_invariant_or_rule_is_cited() -> None:
    texts = {path: path.read_text("utf-8") for path in SOURCES}
    cited = {label: path for path, text in texts.items() for label in re.findall(r"\b[IR][1-9]\d*\b", text)}
    assert not {label: path for label, path in cited.items() if label not in INVARIANTS + RULES}
    assert len(cited) > 20


def test_the_source_cites_pages_that_exist() -> None:
    root = TESTS.parent
    texts = {path: path.read_text("utf-8") for path in (root / "src").rglob("*.py")}
    cited = {page: path for path, text in texts.items() for page in re.findall(r"[\w/.-]+\.md\b", text)}
    assert cited
    assert not {page: path for page, path in cited.items() if not (root / page).exists()}
