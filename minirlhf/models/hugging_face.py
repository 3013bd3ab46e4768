"""To and from the files that the transformers library reads: GPT2LMHeadModel and Llama's family.

The same numbers under other names: a table says which of our tensors is which of theirs. Ours stores query, key and
value (and SwiGLU's gate and up) stacked in one matrix; Llama's files keep them apart, GPT-2's store every matrix of
a block transposed.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.models.checkpoint_files import (
    check_tensors,
    read_json,
    read_tensors,
    replace_folder,
    write_json,
    write_tensors,
)
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.hugging_face_config import SHAPES, family, from_gpt2, from_llama, to_gpt2, to_llama
from minirlhf.tokenizers import storage
from minirlhf.tokenizers.tokenizer import END, PAD, Tokenizer

FILES = frozenset(("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"))


@dataclasses.dataclass(frozen=True)
class Row:
    """Our tensor is their tensors stacked along the first axis, each of so many rows, after transposing if told."""

    ours: str
    theirs: tuple[tuple[str, int], ...]
    transposed: bool = False


def export_hugging_face(model: object, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and its config for transformers' from_pretrained.

    A GPT-2-shaped model becomes GPT2LMHeadModel (missing biases become zeros), a Llama-shaped one LlamaForCausalLM,
    or ArceeForCausalLM when its MLP has no gate, or Qwen3ForCausalLM when it has norms for queries and keys.
    Raises UserError for a model of another kind or a mixed shape, and when the folder cannot be written.
    """
    if not isinstance(model, GPT):
        raise UserError(
            "only a language model can be exported",
            found=type(model).__name__,
            expected="a folder made by pretrain, sft, dpo, grpo, reinforce or ppo",
        )
    config, state = model.config, model.state_dict()
    gpt2 = family(config) == "gpt2"
    tensors: dict[str, Tensor] = {}
    for row in gpt2_rows(config) if gpt2 else llama_rows(config):
        sizes = [size for _, size in row.theirs]
        ours = state[row.ours] if row.ours in state else torch.zeros(sum(sizes))  # a bias the model does without
        for (name, _), part in zip(row.theirs, ours.split(sizes), strict=True):
            tensors[name] = part.T if row.transposed else part
    described = (to_gpt2 if gpt2 else to_llama)(config)
    described |= {"eos_token_id": tokenizer.end_id, "bos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    # Without this, some releases take the tokenizer for the one the model type had first, which has other tokens.
    reader = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context}
    reader |= {"eos_token": END, "bos_token": END, "pad_token": PAD, "clean_up_tokenization_spaces": False}

    def write_files(part: Path) -> None:
        write_json(part / "config.json", described)
        write_tensors(part / "model.safetensors", tensors)
        storage.export_hugging_face(tokenizer, part / "tokenizer.json")
        write_json(part / "tokenizer_config.json", reader)

    replace_folder(Path(folder), write_files, FILES)


def import_hugging_face(folder: str | Path) -> GPT:
    """The model in a folder with config.json and *.safetensors of type gpt2, llama, arcee or qwen3, in float32.

    Raises UserError for another type, for options we do not have, and for tensors that are missing or do not fit.
    """
    folder = Path(folder)
    path = folder / "config.json"
    described = read_json(path)
    kind = described.get("model_type")
    if kind not in SHAPES:
        raise UserError(
            "this type of model cannot be imported",
            where=f'{path}, field "model_type"',
            found=repr(kind),
            expected=" or ".join(f'"{name}"' for name in SHAPES),
        )
    config = (from_gpt2 if kind == "gpt2" else from_llama)(path, described)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError("there are no weights here", where=str(folder), expected="model.safetensors")
    found: dict[str, Tensor] = {}
    for file in weights:
        for name, tensor in read_tensors(file).items():
            base = name.startswith(("h.", "wte.", "wpe.", "ln_f."))  # GPT-2 saved without its language-model head
            found[f"transformer.{name}" if base else name] = tensor.float()

    model = GPT(config)
    expected = model.state_dict()
    rows = gpt2_rows(config) if kind == "gpt2" else llama_rows(config)
    theirs: dict[str, Tensor] = {}
    for row in rows:
        parts = expected[row.ours].split([size for _, size in row.theirs])
        theirs |= {name: part.T if row.transposed else part for (name, _), part in zip(row.theirs, parts, strict=True)}
    check_tensors(weights[0], {name: found[name] for name in theirs if name in found}, theirs)
    model.load_state_dict(
        {row.ours: torch.cat([found[n].T if row.transposed else found[n] for n, _ in row.theirs]) for row in rows}
    )
    return model


def gpt2_rows(config: GPTConfig) -> list[Row]:
    """Our names and GPT2LMHeadModel's."""
    width, hidden = config.width, config.hidden_width
    matrices = (
        ("attention.to_qkv", "attn.c_attn", 3 * width),
        ("attention.to_out", "attn.c_proj", width),
        ("mlp.to_hidden", "mlp.c_fc", hidden),
        ("mlp.to_out", "mlp.c_proj", width),
    )
    rows = [
        Row("token_embedding.weight", (("transformer.wte.weight", config.vocab_size),)),
        Row("position_embedding.weight", (("transformer.wpe.weight", config.context),)),
    ]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"transformer.h.{layer}."
        for our_name, their_name, size in matrices:
            rows.append(Row(f"{ours}{our_name}.weight", ((f"{theirs}{their_name}.weight", size),), transposed=True))
            rows.append(Row(f"{ours}{our_name}.bias", ((f"{theirs}{their_name}.bias", size),)))
        for our_name, their_name in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            rows += [Row(f"{ours}{our_name}.{p}", ((f"{theirs}{their_name}.{p}", width),)) for p in ("weight", "bias")]
    rows += [Row(f"final_norm.{p}", ((f"transformer.ln_f.{p}", width),)) for p in ("weight", "bias")]
    if not config.tie_embeddings:
        rows.append(Row("unembedding.weight", (("lm_head.weight", config.vocab_size),)))
    return rows


def llama_rows(config: GPTConfig) -> list[Row]:
    """Our names and LlamaForCausalLM's; ArceeForCausalLM has no gate_proj, Qwen3ForCausalLM norms of its own."""
    width, hidden, kv_width = config.width, config.hidden_width, config.key_value_heads * config.head_width
    gated = ("mlp.to_gate_and_up", (("mlp.gate_proj", hidden), ("mlp.up_proj", hidden)))
    matrices = (
        (
            "attention.to_qkv",
            (("self_attn.q_proj", width), ("self_attn.k_proj", kv_width), ("self_attn.v_proj", kv_width)),
        ),
        ("attention.to_out", (("self_attn.o_proj", width),)),
        gated if config.mlp == "swiglu" else ("mlp.to_hidden", (("mlp.up_proj", hidden),)),
        ("mlp.to_out", (("mlp.down_proj", width),)),
    )
    rows = [Row("token_embedding.weight", (("model.embed_tokens.weight", config.vocab_size),))]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for our_name, parts in matrices:
            for p in ("weight", "bias") if config.bias else ("weight",):
                rows.append(Row(f"{ours}{our_name}.{p}", tuple((f"{theirs}{name}.{p}", size) for name, size in parts)))
        for our_name, their_name in (("attention_norm", "input_layernorm"), ("mlp_norm", "post_attention_layernorm")):
            rows.append(Row(f"{ours}{our_name}.weight", ((f"{theirs}{their_name}.weight", width),)))
        for name in ("q_norm", "k_norm") if config.qk_norm else ():
            rows.append(
                Row(f"{ours}attention.{name}.weight", ((f"{theirs}self_attn.{name}.weight", config.head_width),))
            )
    rows.append(Row("final_norm.weight", (("model.norm.weight", width),)))
    if not config.tie_embeddings:
        rows.append(Row("unembedding.weight", (("lm_head.weight", config.vocab_size),)))
    return rows
