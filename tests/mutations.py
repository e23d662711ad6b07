"""Damaged files for tests: what a valid file becomes by a few changes of its bytes."""

from hypothesis import strategies as st

# What parsers stumble over: other types, other sizes, signs, ends and nestings.
TOKENS = [
    *(b"null", b"true", b"-1", b"0", b"NaN", b"1e999", b"9" * 5000, b'""', b'"x"', b"{}", b"[]"),
    *(b"\x00", b"\xff", b"\n", b"\x1b[31m", b"\xe2\x80\xa8", b"..", b"/", b"[" * 50_000),
]


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with one to four changes: a bit, a cut, a doubled piece, a token put in."""
    place = st.integers(0, len(content))
    change = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("cut"), place, place),
        st.tuples(st.just("double"), place, place),
        st.tuples(st.just("put"), place, st.sampled_from(TOKENS)),
        st.tuples(st.just("end"), place, st.just(0)),
    )
    return st.lists(change, min_size=1, max_size=4).map(lambda changes: _apply(content, changes))


def _apply(content: bytes, changes: list[tuple]) -> bytes:
    for kind, place, how in changes:
        place = min(place, len(content))
        if kind == "flip" and content:
            place = min(place, len(content) - 1)
            byte = content[place] ^ (1 << how)
            content = content[:place] + bytes([byte]) + content[place + 1 :]
        elif kind == "cut":
            content = content[: min(place, how)] + content[max(place, how) :]
        elif kind == "double":
            content = content[:place] + content[min(place, how) :]
        elif kind == "put":
            content = content[:place] + how + content[place:]
        elif kind == "end":
            content = content[:place]
    return content
