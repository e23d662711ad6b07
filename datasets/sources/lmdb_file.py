"""LMDB's pages, checked before they are mapped: a damaged one could end the process, not the read.

LMDB trusts its file: a page number, a size or an offset that was changed is followed, wherever in
memory it leads. So the B-tree of a file (not its values) is read once, as plain bytes, and every
reference in it must lead inside the file. A tree of 10,000 videos has some 200 pages.

The format is that of LMDB 0.9 on 64-bit machines, in the machine's own byte order.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from datasets.files import DataError, check_file

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, META = 1, 2, 8  # page flags
BIG = 1  # a node's flag: its value lies on pages of its own
HEADER, NODE = struct.Struct("=QHHHH"), struct.Struct("=HHHH")
META_BODY = struct.Struct("=IIQQ48sIHHQQQQQQQ")  # of the free list's tree only its place
PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
MOST_LEVELS = 30


class Tree(NamedTuple):
    """Where a file's tree begins: page size in bytes, root page, last page, transaction."""

    page_size: int
    root: int
    last: int
    transaction: int


def check_lmdb(path: Path) -> None:
    """Raises DataError for no LMDB file, one that is cut off, or one whose tree is damaged."""
    size = check_file(path, "pack").stat().st_size
    with open(path, "rb") as file:
        tree = _read_meta(file, path)
        if (needed := (tree.last + 1) * tree.page_size) > size:
            raise DataError(
                f"{path} is cut off: {size} of {needed} bytes; copy it again, or remove it"
            )
        if tree.root == (1 << 64) - 1:  # an empty tree
            return
        left, seen = [(tree.root, 0)], set()
        while left:
            page, depth = left.pop()
            try:
                if page in seen or depth > MOST_LEVELS:
                    raise ValueError("page refers to page in a circle")
                seen.add(page)
                left += [(child, depth + 1) for child in _children(file, page, tree)]
            except (ValueError, struct.error) as error:
                raise DataError(
                    f"{path} is damaged, on page {page} ({error}); copy it again, or remove it"
                ) from None


def _read_meta(file: BinaryIO, path: Path) -> Tree:
    """The newer of the file's two meta pages, the second of which begins after the first."""
    first = _parse_meta(file.read(HEADER.size + META_BODY.size))
    second = None
    if first:
        file.seek(first.page_size)
        second = _parse_meta(file.read(HEADER.size + META_BODY.size))
    if first is None or second is None or first.page_size != second.page_size:
        raise DataError(
            f"{path} is no pack, or damaged (its first pages); remove it and pack again"
        )
    return max(first, second, key=lambda tree: tree.transaction)


def _parse_meta(content: bytes) -> Tree | None:
    if len(content) < HEADER.size + META_BODY.size:
        return None
    flags = HEADER.unpack_from(content)[2]
    magic, version, _, _, free, _, tree_flags, _, *_, root, last, transaction = (
        META_BODY.unpack_from(content, HEADER.size)
    )
    page_size = struct.unpack_from("=I", free)[0]  # kept in the free list's tree
    right = (magic, version, tree_flags, flags & META) == (MAGIC, VERSION, 0, META)
    if not right or page_size not in PAGE_SIZES or last >= 1 << 47:
        return None
    return Tree(page_size, root, last, transaction)


def _children(file: BinaryIO, number: int, tree: Tree) -> list[int]:
    """The pages that a branch page refers to; raises ValueError for what leads out of the file."""
    if not 2 <= number <= tree.last:
        raise ValueError("there is no such page")
    file.seek(number * tree.page_size)
    page = file.read(tree.page_size)
    own, _, flags, lower, upper = HEADER.unpack_from(page)
    if own != number or flags not in (BRANCH, LEAF):
        raise ValueError("it is no page of the tree")
    if not HEADER.size <= lower <= upper <= tree.page_size or lower % 2:
        raise ValueError("its bounds are wrong")
    places = struct.unpack_from(f"={(lower - HEADER.size) // 2}H", page, HEADER.size)
    if len(places) < (2 if flags == BRANCH else 1):
        raise ValueError("it is empty")
    children = []
    for place in places:
        low, high, node_flags, key_size = NODE.unpack_from(page, place)
        end = place + NODE.size + key_size
        if place < upper or end > tree.page_size:
            raise ValueError("a key leads out of it")
        if flags == BRANCH:
            children.append(low | high << 16 | node_flags << 32)
            continue
        size, room = low | high << 16, tree.page_size - end
        if node_flags == BIG:
            (first,) = struct.unpack_from("=Q", page, end)
            size, room = size + HEADER.size, max(tree.last + 1 - first, 0) * tree.page_size
            room *= first >= 2
        if node_flags not in (0, BIG) or size > room:
            raise ValueError("a value leads out of it")
    return children
