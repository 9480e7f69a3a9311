"""Each hostile input ends in its error, and what fuzzing starts from, and has found, in a value or a typed error."""

from __future__ import annotations

from collections import Counter

import pytest
from corpus import CASES, FUZZED, seeds_of
from hostile import HARMLESS_NAMES

from osdisco.names import escape_key, unescape_key

KINDS = sorted({one.kind for one in CASES})


def test_there_are_many_of_each_kind_and_each_is_there_once() -> None:
    counts = Counter(one.kind for one in CASES)
    assert counts.total() == len({(one.kind, one.given) for one in CASES}) >= 200
    assert counts["name"] + counts["stored name"] >= 25
    assert counts["url"] + counts["url to ask"] >= 200
    assert counts["record"] + counts["extension"] >= 200
    assert counts["consul"] + counts["etcd"] >= 200
    assert counts["state"] + counts["pack"] >= 60


@pytest.mark.parametrize("kind", KINDS)
def test_each_ends_in_its_error(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    wrong = []
    for one in CASES:
        if one.kind == kind:
            try:
                found: object = one.run()
            except Exception as exc:
                found = repr(exc)
            if found is not one.error:
                wrong.append(f"{ascii(one.given)[:200]}: {found}, not {one.error.__name__}")
    assert not wrong, "\n".join([f"{len(wrong)}:", *wrong])


@pytest.mark.parametrize("name", HARMLESS_NAMES, ids=ascii)
def test_what_only_looks_dangerous_is_a_name(name: str) -> None:
    assert unescape_key(escape_key(name)) == name
    assert not {"..", ".", ""} & set(escape_key(name).split("/"))


@pytest.mark.parametrize("target", FUZZED)
def test_what_fuzzing_starts_from_and_has_found_is_taken_or_refused(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = Counter(FUZZED[target](data) for data in seeds_of(target))
    assert len(outcomes) > 1, "all the same"
