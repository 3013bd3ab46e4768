"""TRL's trainers as workers, on the same networks and token ids as ours; timed from step to step by a callback.

The tokenizer is a list of words "t0" ... "t511". For the trainers that sample, its end and padding tokens have ids the
models do not know, so no answer ends early; for the others the end token is the last word of every answer, so none is
added. Dropout is 0, and gradient checkpointing, which would compute the forward pass twice, is off.
"""

import contextlib
import tempfile
import time
from typing import Any

from benchmarks.suite import Measurement

VOCABULARY = 512
WARMUP = 2  # steps before the clock starts
MANY = 100_000  # steps the trainers are told to do; the clock stops them


class Enough(Exception):
    """Raised by the clock inside trainer.train()."""


def clock(seconds: float, marks: list[float]) -> Any:
    """A callback that notes the time after every step and leaves after so many seconds."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())
            if len(marks) > WARMUP and marks[-1] - marks[WARMUP - 1] >= seconds:
                raise Enough

    return Clock()


def timed(build: Any, units: int, seconds: float) -> Measurement:
    """Units per second of build(folder, callback).train(), after the first steps."""
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(folder, clock(seconds, marks))
        with contextlib.suppress(Enough):
            trainer.train()
    return {"units_per_second": units * (len(marks) - WARMUP) / (marks[-1] - marks[WARMUP - 1])}


def tokenizer_of(ends_inside: bool) -> Any:
    """A word for every id; END is the last word, or an id beyond the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(VOCABULARY + 2)}
    plain = Tokenizer(models.WordLevel(words, unk_token="t0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = VOCABULARY - 1 if ends_inside else VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=f"t{end}", pad_token=f"t{VOCABULARY + 1}")


def network(setting: dict[str, int], kind: str = "LMHeadModel", **more: Any) -> Any:
    """A GPT-2 of this size with random weights and no dropout."""
    import transformers

    sizes = {"n_layer": setting["layers"], "n_head": setting["heads"], "n_embd": setting["width"]}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": VOCABULARY + 1}
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=setting["context"],
        attn_implementation="sdpa",
        **sizes,
        **dropouts,
        **ends,
        **more,
    )
    return getattr(transformers, f"GPT2{kind}")(config)


def rows(count: int, length: int) -> list[list[int]]:
    """Random ids below the last, which ends answers."""
    import torch

    return torch.randint(VOCABULARY - 1, (count, length), generator=torch.Generator().manual_seed(0)).tolist()


def words(ids: list[int]) -> str:
    """The text whose tokens are these ids."""
    return " ".join(f"t{number}" for number in ids)


def common(folder: str, batch: int) -> dict[str, Any]:
    """Arguments of every trainer."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "learning_rate": 3e-4,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 10,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def ppo(setting: dict[str, int], seconds: float) -> Measurement:
    """TRL 1.10's PPO with a policy, a value, a reward and a reference network of their own. Episodes per second."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    batch = setting["episodes"]

    def build(folder: str, callback: Any) -> Any:
        config = PPOConfig(
            **common(folder, batch),
            num_ppo_epochs=setting["epochs"],
            num_mini_batches=1,
            total_episodes=MANY * batch,
            local_rollout_forward_batch_size=batch,
            num_sample_generations=0,
            response_length=setting["response"],
            temperature=1.0,
            stop_token=None,
            missing_eos_penalty=None,
            kl_coef=0.05,
        )
        critic = {"num_labels": 1, "kind": "ForSequenceClassification"}
        return PPOTrainer(
            config,
            tokenizer_of(ends_inside=False),
            network(setting),
            network(setting),
            network(setting, **critic),
            Dataset.from_dict({"input_ids": rows(8 * batch, setting["prompt"])}),
            network(setting, **critic),
            callbacks=[callback],
        )

    return timed(build, batch, seconds)


def grpo(setting: dict[str, int], seconds: float) -> Measurement:
    """Groups of answers, one update each. Episodes per second."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    batch, lengths = setting["episodes"], set()

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.update(len(ids) for ids in completion_ids)
        return [text.count("1") / 32 for text in completions]

    def build(folder: str, callback: Any) -> Any:
        config = GRPOConfig(
            **common(folder, batch),
            max_steps=MANY,
            num_generations=setting["group"],
            max_completion_length=setting["response"],
            beta=0.04,
            num_iterations=1,
            temperature=1.0,
            top_k=0,
            loss_type="grpo",
        )
        prompts = Dataset.from_dict({"prompt": [words(ids) for ids in rows(8 * batch, setting["prompt"])]})
        network(setting).save_pretrained(f"{folder}/start")  # the trainer loads its reference from there
        model = AutoModelForCausalLM.from_pretrained(f"{folder}/start", attn_implementation="sdpa")
        tokenizer = tokenizer_of(ends_inside=False)
        return GRPOTrainer(
            model, reward, config, train_dataset=prompts, processing_class=tokenizer, callbacks=[callback]
        )

    measured = timed(build, batch, seconds)
    if lengths != {setting["response"]}:
        raise RuntimeError(f"answers of {lengths} tokens")
    return measured


def pairs(setting: dict[str, int]) -> Any:
    """Prompts with two answers, each ended by the end token."""
    from datasets import Dataset

    count, answer = 8 * setting["pairs"], setting["response"] - 1
    prompts, chosen, rejected = (rows(count, length) for length in (setting["prompt"], answer, answer))
    end = VOCABULARY - 1
    return Dataset.from_dict(
        {
            "prompt": [words(ids) for ids in prompts],
            "chosen": [" " + words([*ids, end]) for ids in chosen],
            "rejected": [" " + words([*reversed(ids), end]) for ids in rejected],
        }
    )


def dpo(setting: dict[str, int], seconds: float) -> Measurement:
    """Pairs per second; the reference's log-probs are computed in the step, as ours are."""
    from trl import DPOConfig, DPOTrainer

    def build(folder: str, callback: Any) -> Any:
        length = setting["prompt"] + setting["response"]
        config = DPOConfig(**common(folder, setting["pairs"]), max_steps=MANY, beta=0.1, max_length=length)
        tokenizer, data = tokenizer_of(ends_inside=True), pairs(setting)
        reference = network(setting)
        return DPOTrainer(
            network(setting), reference, config, train_dataset=data, processing_class=tokenizer, callbacks=[callback]
        )

    return timed(build, setting["pairs"], seconds)


def reward(setting: dict[str, int], seconds: float) -> Measurement:
    """Pairs per second."""
    from trl import RewardConfig, RewardTrainer

    def build(folder: str, callback: Any) -> Any:
        length = setting["prompt"] + setting["response"]
        config = RewardConfig(**common(folder, setting["pairs"]), max_steps=MANY, max_length=length)
        model = network(setting, "ForSequenceClassification", num_labels=1)
        tokenizer, data = tokenizer_of(ends_inside=True), pairs(setting)
        return RewardTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[callback])

    return timed(build, setting["pairs"], seconds)


def sft(setting: dict[str, int], seconds: float) -> Measurement:
    """Tokens per second."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    batch, length = setting["rows"], setting["tokens"]

    def build(folder: str, callback: Any) -> Any:
        config = SFTConfig(**common(folder, batch), max_steps=MANY, max_length=length)
        data = Dataset.from_dict({"input_ids": rows(8 * batch, length)})
        tokenizer = tokenizer_of(ends_inside=True)
        return SFTTrainer(
            network(setting), config, train_dataset=data, processing_class=tokenizer, callbacks=[callback]
        )

    return timed(build, batch * length, seconds)
