"""Export and import: transformers computes the same logits, and the way back gives the same weights."""

import dataclasses
import json

import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel
from minirlhf.models.hugging_face import export_hugging_face, import_hugging_face
from minirlhf.tokenizers.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
GPT2 = GPTConfig(TOKENIZER.vocab_size, context=8, layers=2, heads=4, width=16)
LLAMA = dataclasses.replace(
    GPT2, positions="rope", norm="rms", mlp="swiglu", kv_heads=2, bias=False, tie_embeddings=False
)
CONFIGS = {
    "gpt2": GPT2,
    "gpt2 without bias": dataclasses.replace(GPT2, bias=False),
    "gpt2 with squared relu": dataclasses.replace(GPT2, mlp="relu2"),
    "gpt2 untied, narrow": dataclasses.replace(GPT2, tie_embeddings=False, mlp_width=24),
    "llama": LLAMA,
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True),
    "arcee": dataclasses.replace(LLAMA, mlp="relu2"),
    "arcee with gelu, bias, tied": dataclasses.replace(
        LLAMA, mlp="gelu", bias=True, tie_embeddings=True, kv_heads=None
    ),
    "llama with bias, tied": dataclasses.replace(LLAMA, bias=True, tie_embeddings=True, kv_heads=None, rope_base=500.0),
}


def make(config: GPTConfig) -> GPT:
    generator = torch.Generator().manual_seed(1)
    model = GPT(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def some_ids() -> torch.Tensor:
    return torch.randint(TOKENIZER.vocab_size, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(tmp_path, name):
    model = make(CONFIGS[name])
    export_hugging_face(model, TOKENIZER, tmp_path / "out")
    back = import_hugging_face(tmp_path / "out")
    assert torch.equal(back(some_ids()), model(some_ids()))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_the_same(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    model = make(CONFIGS[name])
    export_hugging_face(model, TOKENIZER, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    family = name.split()[0]
    assert type(theirs).__name__ == ("GPT2LMHeadModel" if family == "gpt2" else f"{family.capitalize()}ForCausalLM")
    logits = theirs(some_ids()).logits.detach()
    torch.testing.assert_close(logits, model(some_ids()).detach(), rtol=1e-4, atol=1e-4)  # float32 on both sides
    theirs.save_pretrained(tmp_path / "back")
    assert torch.equal(import_hugging_face(tmp_path / "back")(some_ids()), model(some_ids()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "Grüße, 世界!"
    assert tokenizer(text).input_ids == TOKENIZER.encode(text)


def test_shapes_transformers_does_not_know_are_refused(tmp_path):
    mixtures = (
        {"norm": "rms"},
        {"kv_heads": 2},
        {"mlp": "swiglu"},
        {"positions": "rope", "mlp": "relu2"},
        {"positions": "rope", "norm": "rms", "mlp": "relu2", "qk_norm": True},
        {"positions": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True, "bias": True},
    )
    for mixed in (dataclasses.replace(GPT2, **change) for change in mixtures):
        with pytest.raises(UserError, match="no model of this shape"):
            export_hugging_face(make(mixed), TOKENIZER, tmp_path / "out")
    with pytest.raises(UserError, match="only a language model"):
        export_hugging_face(RewardModel(make(GPT2)), TOKENIZER, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("gpt2", {"model_type": "bert"}, "cannot be imported"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"n_head": None}, "n_head"),
        ("gpt2", {"n_layer": 3}, "is missing"),
        ("gpt2", {"n_positions": 9}, "shape"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"head_dim": 8}, "head_dim"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"head_dim": None}, "head_dim"),
        ("arcee", {"hidden_act": "silu"}, "hidden_act"),
    ],
)
def test_what_we_do_not_have_is_refused(tmp_path, name, change, told):
    export_hugging_face(make(CONFIGS[name]), TOKENIZER, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(UserError) as error:
        import_hugging_face(tmp_path / "out")
    assert told in str(error.value)


def test_a_folder_without_weights(tmp_path):
    export_hugging_face(make(GPT2), TOKENIZER, tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        import_hugging_face(tmp_path / "out")
