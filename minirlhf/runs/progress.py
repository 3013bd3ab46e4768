"""What a person sees while a run goes on, and how they stop it."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set instead of breaking into the step. Only the main thread gets signals."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_display(
    steps: int, start_step: int, quiet: bool, log_every: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A progress bar on a terminal, or else a line now and then."""
    if quiet or not sys.stderr.isatty():

        def line(step: int, shown: dict[str, float]) -> None:
            if step % log_every == 0 or step >= steps:
                print(f"step {step}/{steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in shown.items()), flush=True)

        yield line
        return
    with tqdm(total=steps, initial=start_step, unit="step", dynamic_ncols=True) as bar:
        kept: dict[str, float] = {}

        def move(step: int, shown: dict[str, float]) -> None:
            kept.update(shown)
            bar.set_postfix_str("  ".join(f"{_short(name)} {value:.4g}" for name, value in kept.items()), refresh=False)
            bar.update(step - bar.n)

        yield move


def _short(key: str) -> str:
    """A metric's name without its unit, for the bar: loss_nats_per_token -> loss."""
    return key.partition("_nats")[0].replace("_per_second", "/s").removesuffix("_mean")
