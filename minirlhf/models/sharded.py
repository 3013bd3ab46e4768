"""A model whose weights, gradients and optimizer state are cut up among the processes (FSDP), and made whole again.

Rajbhandari et al. 2020, arXiv:1910.02054 (ZeRO, stage 3); the cutting is PyTorch's fully_shard. Each transformer block
is one piece: its weights are gathered when it computes and given back afterwards, its gradients are added up over the
ranks and only the own share is kept. The parameters become DTensors, and AdamW, which works number by number, never
notices.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from minirlhf.errors import UserError
from minirlhf.models.gpt import Block
from minirlhf.parallel.ranks import World


def shard(world: World, model: nn.Module) -> None:
    """Cut the model up among the ranks, in place, if the world is sharded. Its optimizer is built afterwards.

    Raises UserError if this PyTorch is too old for it.
    """
    if not world.sharded:
        return
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    except ImportError:
        raise UserError("--shard needs a newer PyTorch", found=torch.__version__, expected="2.13 or newer") from None
    mesh = init_device_mesh(world.device, (world.size,))
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for module in (*blocks, model):
        piece: Any = fully_shard(module, mesh=mesh)
        piece.set_gradient_divide_factor(1.0)  # a sum, not a mean: the loss is divided by the whole batch's count
        piece.set_force_sum_reduction_for_comms(True)
    for name in ("hidden", "decode"):  # ways into the model besides forward
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def pieces(model: nn.Module) -> list[Any]:
    """The modules that were cut: the model first, then its blocks. None if it is not sharded."""
    return [module for module in model.modules() if hasattr(module, "unshard")]


@contextmanager
def whole(*models: nn.Module | None) -> Iterator[None]:
    """Inside, every rank holds all weights of these models, and may use them as often as it likes, alone.

    For writing answers, whose lengths differ from rank to rank. All ranks must enter; nothing may be learnt inside.
    """
    with ExitStack() as leaving:
        for model in models:
            for piece in pieces(model) if model is not None else []:
                piece.set_reshard_after_forward(False, recurse=False)
                piece.unshard()
                leaving.callback(piece.set_reshard_after_forward, piece is not model, recurse=False)
                leaving.callback(piece.reshard)
        yield


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in whole tensors; of a sharded model on the CPU of rank 0 only (all ranks must call)."""
    if not pieces(model):
        return model.state_dict()
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return weights


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Every rank writes its own shares into the folder, as safetensors (no pickle). All ranks must call."""
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dcp.save(dict(tensors), storage_writer=writer)


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What write_shards wrote, in the shapes and shares of `like`: whole tensors, or this rank's part of them.

    Any number of ranks may read what any number wrote. Raises UserError if the files do not fit.
    """
    tensors = {name: tensor.clone() for name, tensor in like.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one process reads alone
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    except (dcp.api.CheckpointException, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            "the saved optimizer state does not fit this model",
            where=str(folder),
            found=str(error).strip().partition("\n")[0][:200],
            fix="resume with the model and settings the run was started with",
        ) from None
    return tensors


def as_shares(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors cut up as those of `like` are; others stay whole."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    result = dict(tensors)
    for name, model in like.items():
        if isinstance(model, DTensor) and name in tensors:
            here = tensors[name].to(model.device, model.dtype)
            result[name] = distribute_tensor(here, model.device_mesh, model.placements, src_data_rank=None)
    return result
