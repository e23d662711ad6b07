"""LMDB's pages, checked before they are mapped: a damaged one could end the process, not the read.

LMDB trusts its file: a page number, a size or an offset that was changed is followed, wherever in
memory it leads. So the B-tree of a file (not its values) is read once, as plain bytes, and every
reference in it must lead inside the file. A tree of 10,000 videos has some 200 pages. Before LMDB
writes in a file, the list of its free pages is checked too: LMDB overwrites what that list names.

The format is that of LMDB 0.9 on 64-bit machines, in the machine's own byte order.
"""

import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from datasets.files import DataError, check_file

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8  # page flags
BIG = 1  # a node's flag: its value lies on pages of its own
HEADER, NODE = struct.Struct("=QHHHH"), struct.Struct("=HHHH")
META_BODY = struct.Struct("=IIQQIHH32xQIHHQQQQQQQ")  # of the free list: page size, flags, root
EMPTY = (1 << 64) - 1  # the root of a tree without pages
INTEGER_KEYS, TREE_FLAGS = 8, 0x7F
PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
MOST_LEVELS = 30


class Tree(NamedTuple):
    """Where a file's trees begin: page size in bytes, roots, last page, transaction."""

    page_size: int
    root: int
    free: int
    last: int
    transaction: int


class Node(NamedTuple):
    """A key of a page, and the page that it refers to, or the value of `size` bytes.

    A value lies in the page (`value`), or begins on the page `child`.
    """

    key: bytes
    child: int | None
    size: int
    value: bytes


def check_lmdb(path: Path, writing: bool = False) -> None:
    """Raises DataError for no LMDB file, one that is cut off, or one whose tree is damaged.

    `writing` checks also what only writing relies on: the free pages, the order of the keys, and
    that no page is used twice.
    """
    size = check_file(path, "pack").stat().st_size
    with open(path, "rb") as file:
        tree = _read_meta(file, path)
        if (needed := (tree.last + 1) * tree.page_size) > size:
            raise DataError(
                f"{path} is cut off: {size} of {needed} bytes; copy it again, or remove it"
            )
        try:
            seen: set[int] = set()
            nodes = list(_leaf_nodes(file, tree.root, tree, seen))
            if writing:
                _check_writing(file, tree, nodes, seen)
        except (ValueError, struct.error) as error:
            raise DataError(f"{path} is damaged, {error}; copy it again, or remove it") from None


def _leaf_nodes(file: BinaryIO, root: int, tree: Tree, seen: set[int]) -> Iterator[Node]:
    """The keys with values of a tree, in its order; adds its pages to `seen`."""
    left = [] if root == EMPTY else [(root, 0)]
    while left:
        page, depth = left.pop()
        try:
            if page in seen or depth > MOST_LEVELS:
                raise ValueError("page refers to page in a circle")
            seen.add(page)
            is_branch, nodes = _page_nodes(file, page, tree)
        except (ValueError, struct.error) as error:
            raise ValueError(f"on page {page} ({error})") from None
        if is_branch:
            left += [(node.child, depth + 1) for node in reversed(nodes)]
        else:
            yield from nodes


def _check_writing(file: BinaryIO, tree: Tree, nodes: list[Node], seen: set[int]) -> None:
    """Raises ValueError if LMDB could overwrite, or free, a page that is used."""
    free = list(_leaf_nodes(file, tree.free, tree, seen))
    lists = [_free_pages(file, node, tree) for node in free]
    transactions = [int.from_bytes(node.key, sys.byteorder) for node in free]
    ranges = [(page, page + 1) for page in seen]
    ranges += [(page, page + 1) for pages in lists for page in pages]
    ranges += [
        (node.child, node.child + _value_pages(file, node, tree))
        for node in nodes + free
        if node.child is not None
    ]
    ranges.sort()
    if any(a >= b for keys in ([n.key for n in nodes], transactions) for a, b in pairwise(keys)):
        raise ValueError("its keys are not in order")
    if transactions and transactions[-1] > tree.transaction:
        raise ValueError("a free page is of a later transaction")
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise ValueError(f"on page {start} (it is used twice)")
    if ranges and not (2 <= ranges[0][0] and ranges[-1][1] <= tree.last + 1):
        raise ValueError("a free page is not in the file")


def _value_pages(file: BinaryIO, node: Node, tree: Tree) -> int:
    """How many pages the value has that begins on a page of its own."""
    file.seek(node.child * tree.page_size)
    own, _, flags, low, high = HEADER.unpack(file.read(HEADER.size))
    pages = low | high << 16
    if own != node.child or flags != OVERFLOW or pages * tree.page_size < HEADER.size + node.size:
        raise ValueError(f"on page {node.child} (no value begins there)")
    return pages


def _free_pages(file: BinaryIO, node: Node, tree: Tree) -> tuple[int, ...]:
    """The pages that a transaction no longer used, in descending order."""
    content = node.value
    if node.child is not None:
        file.seek(node.child * tree.page_size + HEADER.size)
        content = file.read(node.size)
    (count,) = struct.unpack_from("=Q", content)
    if len(node.key) != 8 or len(content) % 8 or 8 * (count + 1) > len(content):
        raise ValueError("a list of free pages is cut off")
    pages = struct.unpack_from(f"={count}Q", content, 8)
    if any(a <= b for a, b in pairwise(pages)):
        raise ValueError("a list of free pages is not in order")
    return pages


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
    (
        magic,
        version,
        _,
        _,
        page_size,
        free_flags,
        _,
        free,
        _,
        tree_flags,
        _,
        *_,
        root,
        last,
        number,
    ) = META_BODY.unpack_from(content, HEADER.size)
    kind = magic, version, flags & META, free_flags & TREE_FLAGS, tree_flags
    right = kind == (MAGIC, VERSION, META, INTEGER_KEYS, 0)
    if not right or page_size not in PAGE_SIZES or last >= 1 << 47 or number >= 1 << 62:
        return None
    return Tree(page_size, root, free, last, number)


def _page_nodes(file: BinaryIO, number: int, tree: Tree) -> tuple[bool, list[Node]]:
    """Whether it is a branch page, and its keys; ValueError for what leads out of page or file."""
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
    nodes, ends = [], {}
    for place in places:
        low, high, node_flags, key_size = NODE.unpack_from(page, place)
        end = place + NODE.size + key_size
        if place < upper or end > tree.page_size:
            raise ValueError("a key leads out of it")
        key, size, child, value = page[place + NODE.size : end], low | high << 16, None, b""
        if flags == BRANCH:
            size, child = 0, size | node_flags << 32
        elif node_flags == BIG:
            (child,) = struct.unpack_from("=Q", page, end)
            room = max(tree.last + 1 - child, 0) * tree.page_size * (child >= 2)
            if size + HEADER.size > room:
                raise ValueError("a value leads out of the file")
            end += 8
        elif node_flags or size > tree.page_size - end:
            raise ValueError("a value leads out of it")
        else:
            value = page[end : end + size]
            end += size
        nodes.append(Node(key, child, size, value))
        ends[place] = end + end % 2
    # one after the other, as LMDB moves them
    if [*sorted(ends), tree.page_size] != [upper, *sorted(ends.values())] or len(ends) < len(nodes):
        raise ValueError("its keys overlap")
    return flags == BRANCH, nodes
