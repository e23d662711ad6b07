"""What a pickle would do, found without doing it: what it calls, how deep and far it unfolds."""

import pickletools
from collections.abc import Iterator
from typing import IO

MOST_NESTED = 100  # containers inside one another; a checkpoint has about ten
MOST_UNFOLDED = 1_000_000  # values that any pickle may unfold to, and
PER_STEP = 10  # so many for each of its instructions
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
# Instructions that put values into a container that is there.
_FILLS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class PickleError(ValueError):
    """A pickle that is not to be read; the message says why."""


def check_pickle(file: IO[bytes], called: list[str]) -> None:
    """Follows one pickle's instructions without making anything of them.

    Appends to `called` the functions and classes that it wants to call, "module.name" each, in its
    order. Raises PickleError for one that is nested deeper than MOST_NESTED, contains itself, or
    unfolds, by containers that are used many times, to far more values than it has instructions;
    and whatever pickletools raises for what is no pickle.
    """
    # A container is the list of what is in it; anything else is a text or None.
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}
    containers: list[list] = []
    steps = 0
    for code, argument, place in pickletools.genops(file):
        steps += 1
        name, before = code.name, code.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name in _PUTS:
            number = len(memo) if argument is None else argument
            if not 0 <= number <= place:  # an unpickler may make room for all numbers up to it
                raise PickleError("its pickle numbers more values than it has")
            memo[number] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            # take what it needs
            has_mark = pickletools.markobject in before
            needed = before.index(pickletools.markobject) if has_mark else len(before)
            start = (marks.pop() if has_mark else len(stack)) - needed
            if start < (marks[-1] if marks else 0):
                raise PickleError("its pickle takes more values than it has")
            taken = stack[start:]
            del stack[start:]
            # give what it makes
            if name in ("GLOBAL", "INST"):
                called.append(argument.replace(" ", ".").replace("__builtin__.", "builtins."))
            elif name == "STACK_GLOBAL":
                called.append(f"{taken[0]}.{taken[1]}")
            if name in _FILLS:
                if isinstance(taken[0], list):
                    taken[0].extend(taken[1:])
                stack.append(taken[0])
            elif code.stack_after:
                is_container = taken or name.startswith("EMPTY")
                made = taken if is_container else argument if isinstance(argument, str) else None
                if is_container:
                    containers.append(taken)
                stack.append(made)
    _check_unfolded(containers, max(MOST_UNFOLDED, PER_STEP * steps))


def _check_unfolded(containers: list[list], most: int) -> None:
    """Raises PickleError unless each container, with all that is in it, is small enough."""
    sizes: dict[int, tuple[int, int]] = {}  # id -> (values, depth)
    opened = set()
    todo = containers[::-1]
    while todo:
        own = todo[-1]
        if id(own) in sizes:
            todo.pop()
            continue
        inside = [value for value in own if isinstance(value, list)]
        waiting = [value for value in inside if id(value) not in sizes]
        if not waiting:
            found = [sizes[id(value)] for value in inside]
            values = 1 + len(own) + sum(size for size, _ in found)
            depth = 1 + max((depth for _, depth in found), default=0)
            if values > most or depth > MOST_NESTED:
                raise PickleError(
                    f"its pickle unfolds to {values:.3g} values, {depth} deep; no file of this "
                    "kind needs that"
                )
            sizes[id(own)] = (values, depth)
        elif id(own) in opened:
            raise PickleError("its pickle contains itself")
        else:
            opened.add(id(own))
            todo += waiting


def first_call(called: list[str], allowed: tuple[str, ...]) -> str | None:
    """The first of the calls that is none of a module whose name starts with one of these."""
    return next((name for name in called if not name.startswith(allowed)), None)


def container_items(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """What is in nested containers, each with its path, such as "optimizer.state.0.step"."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple | set):
        pairs = enumerate(value)
    else:
        yield name, value
        return
    for key, inner in pairs:
        yield from container_items(inner, f"{name}.{key}".lstrip("."))
