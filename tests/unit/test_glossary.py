"""Holds docs/reference/glossary.md to what a glossary is: every word once, in a few lines."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "glossary.md").read_text("utf-8")
ENTRIES = re.findall(r"^### (.+)\n\n((?:.+\n)+)", PAGE, re.MULTILINE)
WORDS = """
    session id; key, value; version; touch; clear; destroy; tombstone; idle timeout; absolute lifetime;
    grace period; retention; node; process; agent; member; seed; peer; live change; reconcile; digest; heal;
    read repair; held back; heard; acknowledgement; handle; engine; data directory; commit; edit; record;
    cell; slot; seen cookie; when behind
"""


def test_the_words_of_the_project_are_explained_once() -> None:
    explained = [word for word, _ in ENTRIES]
    assert len(explained) == len(set(explained)) == PAGE.count("\n### ")
    assert {" ".join(word.split()) for word in WORDS.split(";")} <= set(explained)


def test_an_entry_is_short() -> None:
    long = [word for word, text in ENTRIES if len(text.splitlines()) > 3]
    assert not long
