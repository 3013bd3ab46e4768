"""Whatever nn/, objectives/ and models/ offer has a NumPy reference of its name, or says here why it needs none."""

import ast
import re
from pathlib import Path

import minirlhf
from tests.reference.test_three_witnesses import IDEAS

PACKAGE = Path(minirlhf.__file__).parent

NO_MATHEMATICS = {
    # what is checked or stored, not reckoned
    "check_token_arrays": "a check of shapes",
    "check_finite": "a check",
    "describe_non_finite": "a sentence",
    "non_finite_error": "an exception",
    "kv_cache": "storage; its law is that cached decoding equals the whole forward pass (tests/models/test_gpt.py)",
    "empty_cache": "storage",
    "gpt_config": "settings",
    "make_norm": "a choice between two layers that have references",
    "make_dropout": "a choice; the mask itself is reference/dropout.py",
    "right_padded": "a look at a mask",
    "make_head": "random numbers; their spread is tested in tests/models/test_heads.py",
    "initialise": "random numbers; their spread is tested in tests/models/test_gpt.py",
    "kernels": "an import",
    "interpreted": "a look at the environment",
    "find_attend": "a choice between functions that have references",
    "set_attend": "a choice",
    "set_precision": "a choice",
    "raised": "a choice of number format (tests/models/test_precision.py)",
    "forward_flops": "a count; torch's own counter agrees (tests/models/test_flops.py)",
    "training_flops": "a count",
    "peak_flops_per_second": "a table",
    "compile_blocks": "the same formulas, compiled (tests/models/test_speed.py)",
    "uncompiled": "a switch",
    "compile_decoding": "the same formulas, compiled (tests/models/test_speed.py)",
    "itself": "nothing is done",
    "whole_cache": "storage",
    "any_cache": "a type",
    "inputs_of": "bookkeeping (tests/models/test_decoding_graph.py)",
    "record": "a request to CUDA",
    "recording": "storage",
    "replaying": "the same formulas, recorded (tests/models/test_decoding_graph.py)",
    "of_asked": "a choice of rows (tests/models/test_gpt.py)",
    "decoding_compiled": "a look at a switch",
    "has_compiled_blocks": "a look at a switch",
    "keep_freed_memory": "a request to the C library",
    "attention_op": "the operator inside fused_attention",
    "backward_op": "the operator inside fused_attention's gradient",
}
FASTER = {
    # the same idea in fewer passes over memory -> the name its reference stands under
    "weight_first": "linear",  # tests/nn/test_linear.py
    "read_whole": "hidden",  # tests/models/test_decoding_graph.py
    "read_tokens": "hidden",  # with a cache: tests/models/test_gpt.py
    "lean_attend": "eager_attend",  # tests/nn/test_lean_attention.py
    "one_asks": "eager_attend",
    "lean_attention": "eager_attend",
    "attended": "eager_attend",
    "attended_blocks": "eager_attend",
    "plus": "eager_attend",
    "fused_attend": "eager_attend",  # tests/nn/test_fused_attention.py
    "over_group": "per_group",
    "blocks": "eager_attend",
    "gelu_and_sigmoid": "gelu",
    "chunked_cross_entropy": "cross_entropy",  # tests/objectives/test_likelihood.py
    "sequence_cross_entropy": "cross_entropy",
    "answer_log_probs": "sequence_log_probs",  # tests/objectives/test_likelihood.py
    "language_model": "gpt",
}
FILES_ONLY = (
    "checkpoint.py",
    "checkpoint_files.py",
    "hugging_face.py",
    "hugging_face_config.py",
    "sharded.py",
)  # storage


def public_names(folder: str, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """snake_case name -> file, of every public function and class."""
    names = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.name in skip:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                names[snake_case(node.name)] = f"{folder}/{path.name}"
    return names


def snake_case(name: str) -> str:
    """LayerNorm -> layer_norm, GPT -> gpt, SwiGLU -> swiglu, KVCache -> kv_cache."""
    known = {"SwiGLU": "swiglu", "GPT": "gpt", "GPTConfig": "gpt_config", "KVCache": "kv_cache", "GeluMLP": "gelu_mlp"}
    return known.get(name) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


OFFERED = public_names("nn", ("fused_kernel.py",)) | public_names("objectives") | public_names("models", FILES_ONLY)
REFERENCES = public_names("reference")


def test_every_public_function_has_a_reference_of_the_same_name():
    proved = REFERENCES | NO_MATHEMATICS | FASTER
    missing = {name: file for name, file in OFFERED.items() if name not in proved}
    assert not missing, f"without a proof: {missing}"


def test_no_excuse_is_out_of_date():
    assert set(NO_MATHEMATICS) | set(FASTER) <= set(OFFERED), "an excuse for what is no longer there"
    assert not (set(NO_MATHEMATICS) | set(FASTER)) & set(REFERENCES), "an excuse for what has a reference"
    assert set(FASTER.values()) <= set(REFERENCES), "a reference that is no longer there"


def test_every_derived_gradient_meets_its_witnesses():
    """A function NAME_grad of the reference stands in the list of ideas that the three witnesses are called for."""
    parts = {  # what is proved as a part of an idea of another name
        "softmax": "softmax",
        "hidden": "gpt",
        "norm": "block",
        "mlp": "block",
        "named_linear": "block",
        "attend": "eager_attend",
        "gelu": "gelu, tanh form",
        "gelu_exact": "gelu, exact",
        "log_softmax": "log_softmax with a temperature",
        "with_margin": "bradley_terry with a margin",
        "with_ties": "bradley_terry with ties",
    }
    parts |= {"fused_attention": "eager_attend"}  # equal to it by tests/nn/test_fused_attention.py
    derived = {name.removesuffix("_grad") for name in REFERENCES if name.endswith("_grad")}
    proved = set(IDEAS) | {name for name, idea in parts.items() if idea in IDEAS}
    assert derived <= proved, f"never put to the test: {sorted(derived - proved)}"
