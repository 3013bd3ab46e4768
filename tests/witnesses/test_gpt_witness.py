"""transformers builds the same decoders from the files we export: same logits, same gradients, same greedy answers."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig, sampling_log_probs
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.hugging_face import export_hugging_face, gpt2_rows, llama_rows
from minirlhf.objectives.cross_entropy import cross_entropy
from minirlhf.objectives.likelihood import sequence_log_probs
from minirlhf.records import PromptBatch
from minirlhf.tokenizers.tokenizer import byte_tokenizer
from tests.witnesses.compare import randn

transformers = pytest.importorskip("transformers")

TOKENIZER = byte_tokenizer()
GPT2 = GPTConfig(TOKENIZER.vocab_size, context=24, layers=2, heads=4, width=16)
LLAMA = dataclasses.replace(
    GPT2, positions="rope", norm="rms", mlp="swiglu", kv_heads=2, bias=False, tie_embeddings=False
)
CONFIGS = {
    "gpt2": GPT2,
    "gpt2 untied": dataclasses.replace(GPT2, tie_embeddings=False, mlp_width=24, norm_eps=1e-3),
    "llama grouped": LLAMA,
    "llama one kv head, tied": dataclasses.replace(LLAMA, kv_heads=1, tie_embeddings=True, rope_base=500.0),
    "llama with bias": dataclasses.replace(LLAMA, bias=True, kv_heads=None, norm_eps=1e-3),
}
EXACT = {"rtol": 1e-9, "atol": 1e-10}
# Each of Llama's float32 islands rounds to 6e-8; two layers and a softmax make that a few 1e-6 of the largest number.
FLOAT32_ISLANDS = {"rtol": 1e-4, "atol": 3e-5}


class Angles(nn.Module):
    """Llama's table of cosines and sines in float64; transformers reckons it in float32 whatever the model's dtype."""

    def __init__(self, width: int, base: float):
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)

    def forward(self, x, position_ids):
        angles = position_ids[..., None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def without_float32_islands(theirs, config):
    """Llama in float64 throughout: its norms, which cast to float32, become torch's own, and its angles Angles."""
    for module in list(theirs.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(config.width, eps=config.norm_eps)
                norm.weight = child.weight
                setattr(module, name, norm)
    theirs.model.rotary_emb = Angles(config.head_width, config.rope_base)
    return theirs


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory):
    """name -> (our model, theirs), made once, float64, with weights large enough that every part matters."""
    made = {}

    def pair(name, islands=False):
        if (name, islands) not in made:
            config = CONFIGS[name]
            ours = GPT(config, torch.Generator().manual_seed(1))
            with torch.no_grad():
                for place, parameter in enumerate(ours.parameters()):
                    parameter.add_(0.3 * randn(place, *parameter.shape).float())
            folder = tmp_path_factory.mktemp("exported") / "model"
            export_hugging_face(ours, TOKENIZER, folder)
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
            if "llama" in name and not islands:
                theirs = without_float32_islands(theirs, config)
            made[name, islands] = ours.double().eval(), theirs
        return made[name, islands]

    return pair


def a_batch(padding):
    """ids [3 10] and a mask; with padding, each row has another number of pads at its left."""
    ids = torch.randint(256, (3, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(10) >= torch.tensor([[0], [3], [7]]) * padding
    return ids.masked_fill(~mask, TOKENIZER.pad_id), mask


def their_logits(theirs, ids, mask):
    """transformers counts positions from the first column, padding included, unless it is told them."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    return theirs(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False).logits


def losses(ours, theirs, ids, mask):
    """The mean surprise of the real targets: ours by our objective, theirs by torch's cross-entropy."""
    counts = mask[:, 1:] & mask[:, :-1]
    our_loss = cross_entropy(sequence_log_probs(ours, ids, mask), counts)
    labels = ids[:, 1:].masked_fill(~counts, -100)
    their_loss = F.cross_entropy(their_logits(theirs, ids, mask)[:, :-1].flatten(0, 1), labels.flatten())
    return our_loss, their_loss


def gradients_under_our_names(theirs, config):
    """Their gradients, stacked and transposed as the table of the export says."""
    found = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    rows = llama_rows(config) if config.positions == "rope" else gpt2_rows(config)
    return {row.ours: torch.cat([found[n].T if row.transposed else found[n] for n, _ in row.theirs]) for row in rows}


@pytest.mark.parametrize("padding", [False, True], ids=["whole rows", "left-padded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_every_gradient(pair_of, name, padding):
    ours, theirs = pair_of(name)
    ids, mask = a_batch(padding)
    torch.testing.assert_close(ours(ids, mask)[mask], their_logits(theirs, ids, mask)[mask], **EXACT)
    ours.zero_grad()
    theirs.zero_grad()
    our_loss, their_loss = losses(ours, theirs, ids, mask)
    (our_loss + their_loss).backward()
    torch.testing.assert_close(our_loss, their_loss, **EXACT)
    wanted = gradients_under_our_names(theirs, CONFIGS[name])
    named = dict(ours.named_parameters())
    assert set(named) == set(wanted)
    for parameter_name, parameter in named.items():
        assert parameter.grad.abs().max() > 1e-6, parameter_name
        torch.testing.assert_close(
            parameter.grad, wanted[parameter_name], msg=lambda text, at=parameter_name: f"{at}: {text}", **EXACT
        )


@pytest.mark.parametrize("name", [name for name in CONFIGS if "llama" in name])
def test_llama_as_it_comes_differs_by_its_float32_islands_only(pair_of, name):
    """A float64 Llama of transformers still norms and turns in float32. Ours does not, so the two differ by roundings
    of float32, and by more than float64's; with the islands replaced (above) they agree to float64."""
    ours, theirs = pair_of(name, islands=True)
    ids, mask = a_batch(True)
    found, wanted = ours(ids, mask)[mask], their_logits(theirs, ids, mask)[mask]
    torch.testing.assert_close(found, wanted, **FLOAT32_ISLANDS)
    assert (found - wanted).abs().max() > 1e-9


@pytest.mark.parametrize("stop", [False, True], ids=["to the end", "with an end token"])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_answers(pair_of, name, stop):
    """Left-padded prompts, a cache on both sides, rows that end early filled up with the pad token."""
    ours, theirs = pair_of(name)
    ids, mask = a_batch(True)
    sampling = SamplingConfig(max_new_tokens=12, greedy=True)

    def answers(stop_ids):
        prompts = PromptBatch(ids, mask, ("",) * len(ids))
        return generate(ours, prompts, sampling, stop_ids, TOKENIZER.pad_id, torch.Generator().manual_seed(0))

    stop_ids = (int(answers(()).ids[1, 13]),) if stop else ()  # what row 1 says fourth, so that it ends there at last
    found = answers(stop_ids)
    wanted = theirs.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=TOKENIZER.pad_id,
    )
    assert torch.equal(found.ids, wanted)
    assert (not found.response_mask.all()) == stop


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (5, None), (None, 0.8), (7, 0.6), (None, 0.05), (1, None)])
def test_temperature_top_k_and_top_p_in_this_order(temperature, top_k, top_p):
    """transformers' logits processors, one after another, against the distribution we draw from."""
    process = transformers.generation.logits_process
    logits = 2 * randn(3, 50, 20)
    wanted = process.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        wanted = process.TopKLogitsWarper(top_k)(None, wanted)
    if top_p is not None:
        wanted = process.TopPLogitsWarper(top_p)(None, wanted)
    found = sampling_log_probs(logits, SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p))
    torch.testing.assert_close(found, wanted.log_softmax(-1), rtol=1e-12, atol=1e-12)
    assert found.isinf().any() == (top_k is not None or top_p is not None)
