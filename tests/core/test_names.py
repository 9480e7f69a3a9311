"""Names of callers become keys injectively, and nothing that a caller writes steps out of its place."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, strategies as st

from osdisco.backend import Limits
from osdisco.errors import InvalidNameError
from osdisco.names import (
    SEGMENT_MAX,
    are_plain,
    escape,
    escape_key,
    escape_prefix,
    unescape,
    unescape_key,
)

HOSTILE = [
    "..",
    ".",
    "...",
    "a b",
    "é",
    "e\u0301",
    "x:y",
    "a,b",
    "%2F",
    "=2F",
    "a=b",
    "=",
    "==",
    "=3D",
    "\0",
    "\n",
    "🎈",
]
TROUBLE = st.sampled_from([*HOSTILE, "a", "A", "=2E", "2E", "/", "a/b", "%2e", "\x7f", "'", '"', "~", "?a=b", "#"])

segments = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.lists(TROUBLE, min_size=1, max_size=5).map("".join),
)
names = st.lists(segments.filter(lambda s: "/" not in s), min_size=1, max_size=4).map("/".join)


@given(segments)
def test_a_name_comes_back_from_its_escaped_form(name: str) -> None:
    assert unescape(escape(name)) == name


@given(segments, segments)
@example("=", "=3D")
@example("a=b", "a=3Db")
@example("/", "=2F")
@example("..", "=2E=2E")
def test_distinct_names_have_distinct_escaped_forms(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(segments)
def test_an_escaped_name_is_one_harmless_segment_of_a_path(name: str) -> None:
    escaped = escape(name)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.-]|=[0-9A-F]{2})+", escaped)
    assert escaped not in (".", "..")


@given(names)
def test_a_key_comes_back_from_its_escaped_form_with_its_segments(name: str) -> None:
    escaped = escape_key(name)
    assert unescape_key(escaped) == name
    assert escaped.count("/") == name.count("/")


@given(st.lists(names | st.sampled_from(["a/./b", "a/../b", "a//b", "/a", "a/", "", "a/\n", "a\udcff"]), max_size=4))
def test_keys_that_are_plain_together_are_their_own_names(keys: list[str]) -> None:
    if are_plain(keys):
        assert [unescape_key(key) for key in keys] == keys


def test_what_is_plain_is_found_to_be_so() -> None:
    assert are_plain(["a", "b/c-d_E.9", "...", "a/..b/.c"])
    assert are_plain(["x" * SEGMENT_MAX])
    for other in [
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        "a//b",
        "/a",
        "a/",
        "",
        "a b",
        "a=20b",
        "ü",
        "x" * (SEGMENT_MAX + 1),
    ]:
        assert not are_plain(["a", other, "b"])


@given(names, names)
def test_distinct_keys_have_distinct_escaped_forms(one: str, other: str) -> None:
    assert (escape_key(one) == escape_key(other)) == (one == other)


@given(names, names)
@example("a", "ab")
@example("a/b", "a")
@example("a", "a/b")
@example("a/b", "a/bc")
def test_a_key_lies_under_an_escaped_prefix_exactly_when_it_lies_under_the_prefix(prefix: str, key: str) -> None:
    assert escape_key(key).startswith(escape_prefix(prefix + "/")) == key.startswith(prefix + "/")


@given(st.lists(segments, min_size=1, max_size=4), st.lists(segments, min_size=1, max_size=4))
@example(["a/b"], ["a", "b"])
def test_keys_joined_of_single_segments_are_distinct_whatever_the_segments_hold(
    one: list[str], other: list[str]
) -> None:
    def joined(parts: list[str]) -> str:
        return "/".join(escape(part) for part in parts)

    assert (joined(one) == joined(other)) == (one == other)


def test_hostile_names_make_distinct_keys_that_come_back() -> None:
    keys = {escape(name): name for name in HOSTILE}
    assert len(keys) == len(HOSTILE)
    assert {escaped: unescape(escaped) for escaped in keys} == keys


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("plain-Name_1.txt", "plain-Name_1.txt"),
        (".", "=2E"),
        ("..", "=2E=2E"),
        ("...", "..."),
        (".a", ".a"),
        ("a b", "a=20b"),
        ("é", "=C3=A9"),
        ("x:y", "x=3Ay"),
        ("a,b", "a=2Cb"),
        ("%2F", "=252F"),
        ("a=b", "a=3Db"),
        ("a/b", "a=2Fb"),
        ("..\n", "..=0A"),
        ("a\n", "a=0A"),
    ],
)
def test_the_escaped_form_is_the_written_one(name: str, escaped: str) -> None:
    assert escape(name) == escaped


def test_dots_that_would_lead_out_of_a_path_are_only_text() -> None:
    assert escape_key("job/../../agent/leave") == "job/=2E=2E/=2E=2E/agent/leave"
    assert escape_key("./a") == "=2E/a"
    assert escape_key("a/..") == "a/=2E=2E"


EMPTY = ["", "/", "//", "/a", "a/", "a//b"]


@pytest.mark.parametrize("key", EMPTY)
def test_a_key_with_an_empty_segment_is_refused(key: str) -> None:
    with pytest.raises(InvalidNameError, match="empty"):
        escape_key(key)


SURROGATES = ["\ud800", "a\udfffb"]


@pytest.mark.parametrize("name", SURROGATES)
def test_a_lone_surrogate_is_refused_and_shown_in_ascii(name: str) -> None:
    for refuse in (escape, escape_key):
        with pytest.raises(InvalidNameError, match="lone surrogate") as caught:
            refuse(name)
        assert str(caught.value).isascii()


@pytest.mark.parametrize("name", ["a" * SEGMENT_MAX, "é" * 127 + "a", " " * SEGMENT_MAX])
def test_a_segment_of_255_bytes_fits(name: str) -> None:
    assert unescape(escape(name)) == name


TOO_LONG = ["a" * 256, "é" * 128, " " * 256]


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_segment_of_256_bytes_is_refused_with_its_size(name: str) -> None:
    for refuse in (escape, escape_key):
        with pytest.raises(InvalidNameError, match="256 bytes; 255 are allowed"):
            refuse(name)


@pytest.mark.parametrize("name", [None, b"a", 1, ["a"]])
def test_what_is_not_text_is_refused(name: object) -> None:
    for refuse in (escape, escape_key):
        with pytest.raises(InvalidNameError, match=f"is text, not {type(name).__name__}"):
            refuse(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["a", "a/b", "/", "//", "a//", "/a/"])
def test_a_prefix_that_is_not_segments_ending_in_a_slash_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidNameError):
        escape_prefix(prefix)


@pytest.mark.parametrize("prefix", [None, b"", 0, [], b"a/"])
def test_what_is_not_text_is_no_prefix_and_never_means_everything(prefix: object) -> None:
    with pytest.raises(InvalidNameError):
        escape_prefix(prefix)  # type: ignore[arg-type]


def test_the_empty_prefix_is_everything() -> None:
    assert escape_prefix("") == ""


FOREIGN = [
    "",
    ".",
    "..",
    "a b",
    "=2f",
    "=41",
    "=",
    "a=4",
    "=C3",
    "=FF",
    "=2E.",
    "a%2Fb",
    "é",
    "a/b",
    "a\n",
    "=2E=2E=2E",
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_escape_never_writes_is_told_from_names(foreign: str) -> None:
    with pytest.raises(InvalidNameError):
        unescape(foreign)


@given(st.text(st.sampled_from("=0123456789ABCDEFabcdef.-_%/é"), max_size=12))
def test_only_canonical_forms_come_back(escaped: str) -> None:
    try:
        name = unescape(escaped)
    except InvalidNameError:
        return
    assert escape(name) == escaped


@given(st.text(max_size=20))
def test_any_text_is_escaped_or_refused_by_the_one_error(name: str) -> None:
    for function in (escape, escape_key, escape_prefix, unescape, unescape_key):
        try:
            function(name)
        except InvalidNameError:
            continue


def test_the_limit_of_a_key_counts_its_escaped_form_and_its_root() -> None:
    from osdisco._keys import Keyspace

    keys = Keyspace("root/", Limits(ttl_min=1, ttl_max=10, expiry_factor=1, key_max=20))
    assert keys.key("a" * 15) == "root/" + "a" * 15
    assert keys.join("a/b", "c") == "root/a=2Fb/c"
    for refuse in (keys.key, keys.join):
        with pytest.raises(InvalidNameError, match="23 bytes with its namespace, escaped; 20 are allowed"):
            refuse(" " * 6)
    with pytest.raises(InvalidNameError, match="20 are allowed"):
        keys.prefix(" " * 6 + "/")


def test_keys_of_foreign_writers_have_no_name() -> None:
    from osdisco._keys import Keyspace
    from osdisco.backend import Item

    keys = Keyspace("root/", Limits(ttl_min=1, ttl_max=10, expiry_factor=1))
    ours, foreign = Item("root/a=20b", b"1", 1, 1), Item("root/a b", b"2", 2, 2)
    assert keys.items([ours, foreign, Item("root/\udcff", b"", 3, 3)]) == {"a b": Item("a b", b"1", 1, 1)}
    assert keys.names([foreign.key, ours.key, "root/a"]) == [None, "a b", "a"]
    assert keys.names([]) == []
    assert keys.deeper("x y").key("z") == "root/x=20y/z"
