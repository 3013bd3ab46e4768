"""The same work on many pieces of text, over several processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(work: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """map(work, items), in order, over so many processes; in this one if there is no more than one item.

    Only a few items are taken ahead of the results, so neither need fit into memory together. Where Python starts
    new processes instead of copying this one (macOS, Windows), the main script needs its `if __name__ == "__main__"`.
    """
    items = iter(items)
    first = list(islice(items, 2))
    if processes == 1 or len(first) < 2:
        yield from map(work, chain(first, items))
        return
    with ProcessPoolExecutor(processes, initializer=_take, initargs=(work,)) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in chain(first, items):
            waiting.append(pool.submit(_do, item))
            if len(waiting) > processes + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """The texts, in lists that hold so many characters together, or a little more."""
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= characters:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


_work: Callable[[Any], Any]  # in each of the processes: handed over once, not with every item


def _take(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _do(item: Any) -> Any:
    return _work(item)
