"""Versions and specifiers: the order of SemVer, with missing parts as zero."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from osdisco.discovery.versions import Version, parse, specifier
from osdisco.errors import DiscoveryError


def version(text: str) -> Version:
    parsed = parse(text)
    assert parsed is not None
    return parsed


RISING = """
0 0.0.1-alpha 0.0.1 0.9 1.0.0-0 1.0.0-1 1.0.0-2 1.0.0-10 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta
1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1 1.0.1 1.2 1.10 1.10.0.1 2.0.0-SNAPSHOT 2 2.11.0-SNAPSHOT 2.11.0 3.0.0-x-y
"""


def test_they_rise_as_semver_says() -> None:
    for lower, higher in pairwise(RISING.split()):
        assert version(lower) < version(higher), (lower, higher)


@pytest.mark.parametrize(
    "texts", ["1 1.0 1.0.0 1.0.0.0 1.0.0+build.7 1+x", "3.0.0-SNAPSHOT 3-SNAPSHOT 3.0-SNAPSHOT+7", "1.0.0--"]
)
def test_missing_parts_are_zero_and_builds_do_not_count(texts: str) -> None:
    assert len({version(text) for text in texts.split()}) == 1


NO_VERSIONS = ["", "v1", "1.", ".1", "01", "1.02", "1.0.0-01", "1.0.0-", "1.0.0-a..b", "1.0.0+", "1 ", "1\n"]
NO_VERSIONS += ["1.2.3.4.5", "latest", "１", "-1", "1.x", "9" * 5000]


@pytest.mark.parametrize("text", NO_VERSIONS)
def test_what_is_no_version(text: str) -> None:
    assert parse(text) is None


MATCHES = {
    ">=1.2,<2": ("1.2 1.2.0 1.9.9 1.2.1-rc.1 2.0.0-SNAPSHOT", "1.1.9 1.2.0-rc.1 2 2.0.0+x 10"),
    ">=1.2,<2.0.0-0": ("1.2 1.99", "2.0.0-SNAPSHOT 2.0.0-0 2"),
    ">=3": ("3 3.0.1 3.1.0-SNAPSHOT", "3.0.0-SNAPSHOT 2.9"),
    ">1": ("1.0.1 2", "1 1.0.0+x 1.0.0-a"),
    "<=1": ("1 1.0.0-a 0.9", "1.0.1"),
    "==1.4": ("1.4 1.4.0 1.4.0+b", "1.4.1 1.4.0-rc.1 rubbish"),
    "!=1.4": ("1.4.1 1.4.0-rc.1 1", "1.4 1.4.0 rubbish"),
    "~=1.4": ("1.4 1.4.7 1.9", "1.3.9 2 2.0.0-SNAPSHOT 1.4.0-rc.1"),
    "~=1.4.2": ("1.4.2 1.4.9", "1.5 1.5.0-alpha 1.4.1"),
    "~=2.11.0.0": ("2.11.0.0 2.11.0.9", "2.11.1 2.11.1-x"),
    "~=1.4.2-rc.1": ("1.4.2-rc.1 1.4.2-rc.2 1.4.2", "1.4.2-beta 1.5"),
    "== 3.0.0-SNAPSHOT": ("3.0.0-SNAPSHOT 3-SNAPSHOT", "3.0.0 3.0.0-snapshot"),
    " >= 1 , != 1.3 ": ("1 1.4", "1.3 0.9"),
    "==rubbish": ("rubbish", "1 rubbish2"),
    "!=rubbish": ("1 2", "rubbish other"),
    "==1,==2": ("", "1 2"),
}


@pytest.mark.parametrize("text", MATCHES)
def test_a_specifier_matches_these_and_not_those(text: str) -> None:
    those, not_those = (part.split() for part in MATCHES[text])
    chosen = [one for one in [*those, *not_those] if specifier(text).matches(one)]
    assert chosen == those


BAD = ["", ",", ">=1,", "1.2", "=1", "=>1", ">=", ">= 1 2", "^1.2", "~1.2", ">=1.x", "<rubbish", "~=1", "~=x", "===1"]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_specifier_is_refused_and_shown(text: str) -> None:
    with pytest.raises(DiscoveryError, match=r"such as") as caught:
        specifier(text)
    assert text.strip(", ") in str(caught.value)


def test_a_specifier_that_is_no_text_is_refused() -> None:
    with pytest.raises(DiscoveryError, match=re.escape("is text, not int")):
        specifier(2)  # type: ignore[arg-type]


NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
IDENTIFIERS = st.integers(0, 12).map(str) | st.sampled_from(["a", "b", "SNAPSHOT", "0a", "-"])
PRE = st.lists(IDENTIFIERS, max_size=3).map(lambda parts: "-" + ".".join(parts) if parts else "")
TEXTS = st.builds("{}{}{}".format, NUMBERS, PRE, st.sampled_from(["", "", "+b.1"]))


@given(TEXTS, TEXTS, TEXTS)
@settings(deadline=None)
def test_the_order_is_total(a: str, b: str, c: str) -> None:
    one, two, three = version(a), version(b), version(c)
    assert [one < two, one == two, two < one].count(True) == 1
    if one <= two <= three:
        assert one <= three


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_the_signs_agree_with_each_other(text: str, bound: str) -> None:
    says = {sign: specifier(sign + bound).matches(text) for sign in (">=", "<=", ">", "<", "==", "!=")}
    assert says["=="] == (says[">="] and says["<="]) == (not says["!="])
    assert says[">"] == (not says["<="])
    assert says["<"] == (not says[">="])
    if "." in re.split("[-+]", bound)[0]:
        assert not specifier("~=" + bound).matches(text) or says[">="]


@given(st.text(max_size=12))
@settings(deadline=None)
def test_any_text_is_a_version_or_none_and_a_specifier_or_refused(text: str) -> None:
    parse(text)
    try:
        specifier(text).matches(text)
    except DiscoveryError:
        return
    assert text.strip()
