"""Joining the processes that torchrun started, and what they tell the person at the keyboard when one is lost.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and where to meet (MASTER_ADDR, MASTER_PORT); without them there is one
process, and nothing here happens.
"""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist

from minirlhf.device import pick_device
from minirlhf.errors import UserError
from minirlhf.parallel.ranks import ALONE, World, largest, totals

ROLL_CALL_SECONDS = 3.0
"""How long the ranks that are left wait for one another's sign of life: they notice a loss at almost the same time."""

BROKEN_LINK = ("gloo/transport", "nccl", "connection closed", "connection reset", "timed out", "broken pipe", "socket")
"""Words of PyTorch's errors, in lower case, when another process does not answer."""


class LostProcess(Exception):
    """Another process of this run has ended or stopped answering; the message names it."""


def started() -> int:
    """How many processes torchrun has started for this run: 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device_name: str, shard: bool, timeout_seconds: float) -> Iterator[World]:
    """The world of this process, from the first handshake to the last. Only rank 0 prints inside.

    Raises UserError for a device that several processes cannot train on, and LostProcess, after timeout_seconds at
    the latest, when another rank is gone.
    """
    if started() == 1:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    device = pick_device(device_name).type
    check_device(device, local_rank)
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    world = World(rank, started(), device, shard)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=timeout_seconds))
    store = meeting_place()  # opened while all are there
    try:
        with silent(world.rank):
            yield world
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(words in str(error).lower() for words in BROKEN_LINK):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun is about to end us too: first the message
        raise LostProcess(describe_loss(world, roll_call(world, store), error)) from error


def check_device(device: str, local_rank: int) -> None:
    """Raises UserError unless this process has a device of its own that can talk to others."""
    if device not in ("cpu", "cuda"):
        raise UserError("several processes train on cpu or cuda", found=f"--device {device}", fix="--device cpu")
    if device == "cuda" and local_rank >= torch.cuda.device_count():
        raise UserError(
            "there are more processes than GPUs",
            found=f"local rank {local_rank} with {torch.cuda.device_count()} GPUs",
            fix=f"torchrun --nproc-per-node {torch.cuda.device_count()}, or --device cpu",
        )


def check_shares(world: World, batch_size: int, minibatches: int = 1) -> None:
    """Raises UserError unless every rank gets rows of every minibatch; equally many if the model is sharded.

    (Sharded ranks hold each other's weights, so they must pass through the model equally often.)
    """
    each = batch_size // minibatches
    whole = batch_size % (minibatches * world.size) == 0 or not world.sharded
    if each >= world.size and whole:
        return
    raise UserError(
        "the batch cannot be shared by so many processes",
        where="--batch-size" + (" and --minibatches" if minibatches > 1 else ""),
        found=f"{batch_size} rows in {minibatches} minibatches for {world.size} processes",
        expected="a multiple of minibatches times processes" if world.sharded else "a row of each minibatch for each",
        fix=f"for instance --batch-size {minibatches * world.size * max(1, round(each / world.size))}",
    )


@contextmanager
def leader_first(world: World) -> Iterator[None]:
    """Rank 0 goes through the block before the others; if it fails there, they end without a word of their own."""
    if world.leads:
        failed = 1
        try:
            yield
            failed = 0
        finally:
            largest(world, failed)
    else:
        if largest(world, 0)[0]:
            raise SystemExit(2)
        yield


def check_agreement(world: World, settings: str) -> None:
    """Raises UserError if this rank was started with other settings or other data than rank 0."""
    digest = int.from_bytes(hashlib.sha256(settings.encode("utf-8")).digest()[:6], "big")
    leaders = totals(world, {"digest": digest if world.leads else 0})["digest"]
    if digest != leaders:
        raise UserError(
            "this process sees other settings or other data than rank 0",
            where=f"rank {world.rank} of {world.size}",
            fix="give every node the same command, and the same files under the same names",
        )


def roll_call(world: World, store: dist.Store | None) -> list[int]:
    """The ranks that give no sign of life."""
    if store is None:
        return []
    key, until = "minirlhf/here/{}".format, time.monotonic() + ROLL_CALL_SECONDS
    missing = [rank for rank in range(world.size) if rank != world.rank]
    try:
        store.set(key(world.rank), "yes")
        while missing and time.monotonic() < until:
            time.sleep(0.1)
            missing = [rank for rank in missing if not store.check([key(rank)])]
    except RuntimeError:  # the meeting place itself is gone, and with it the machine of rank 0
        return [0]
    return missing


def describe_loss(world: World, missing: list[int], error: Exception) -> str:
    """What happened, and what to do."""
    who = " and ".join(f"rank {rank}" for rank in missing) or "a rank"
    return str(
        UserError(
            f"{who} of {world.size} processes has ended or stopped answering, so the run cannot go on",
            found=str(error).strip().partition("\n")[0][:200],
            fix="see what that process said last (out of memory? killed? another error?), mend it, and go on from the"
            " last checkpoint:\n  the same command with --resume, with as many processes as you like",
        )
    )


def meeting_place() -> dist.Store | None:
    """The table of keys and values where the processes met; None when it cannot be reached any more."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=ROLL_CALL_SECONDS))
    except (KeyError, RuntimeError):
        return None


def said_before(message: str) -> bool:
    """Has another process said this already? What is wrong for all of them need be said only once."""
    store = meeting_place() if started() > 1 else None
    if store is None:
        return False
    try:
        return store.add("minirlhf/said/" + hashlib.sha256(message.encode("utf-8")).hexdigest(), 1) > 1
    except RuntimeError:
        return False


@contextmanager
def silent(rank: int, errors: bool = False) -> Iterator[None]:
    """Nothing printed inside is seen, but on rank 0."""
    if rank == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        streams = redirect_stderr(nowhere) if errors else nullcontext()
        with streams:
            yield
