"""The preference and RL trainers against TRL's: PPO, GRPO, DPO, the reward model, SFT.

    python -m benchmarks.trainers [--quick] [--only ppo grpo dpo reward sft growth]

GPT-2 of 4 layers, 4 heads, width 128, vocabulary 512, random weights, dropout 0, float32. Prompts of 16 random tokens,
answers of 32, none of which ends early. PPO: 64 episodes a batch, 4 epochs of one minibatch; policy, value, reward and
reference networks of this size each; "one trunk" is another, smaller network, whose policy and value share everything
but their heads (`--value-from shared`), held against TRL's four all the same. GRPO: 8 prompts with 8 answers, one
update, β 0.04. DPO and the reward model: 32 pairs. SFT: 32 rows of 128 tokens. Ours are the public trainers, TRL's
stand in trl_peers.py, and the bound is the matrix products of the work, where every log-prob is computed once and PPO's
old ones fall out of sampling.
"""

import copy
from typing import Any

from benchmarks.products import Product, Shape, flops, generation_passes, pass_products, prepare
from benchmarks.suite import (
    PPO_PYTHON,
    Bar,
    Growth,
    Job,
    Measurement,
    Table,
    interleave,
    options,
    ratio,
    throughput,
    versions,
    wanted,
    write,
)

VOCABULARY = 512
SETTING = {
    "layers": 4, "heads": 4, "width": 128, "context": 128, "prompt": 16, "response": 32,
    "episodes": 64, "epochs": 4, "group": 8, "pairs": 32, "rows": 32, "tokens": 128,
}  # fmt: skip
UNITS = {"ppo": "episodes", "grpo": "episodes", "dpo": "pairs", "reward": "pairs", "sft": "tokens"}
TARGETS = {"ppo": 1.7, "grpo": 2.0, "dpo": 1.6, "reward": 1.3, "sft": 1.6}
ONE_TRUNK = 2.8  # times TRL's separate networks
MEMORY = 0.6  # of TRL's
MANY = 10**9
BOUND = "bound: matrix products"
TITLE = "Preference and RL trainers"


# Ours as workers


def network(setting: dict[str, int], seed: int = 0) -> Any:
    """Our GPT in GPT-2's shape."""
    import torch

    from benchmarks.ours import as_the_command
    from minirlhf.models.gpt import GPT, GPTConfig
    from minirlhf.models.speed import compile_decoding

    shape = GPTConfig(VOCABULARY, setting["context"], setting["layers"], setting["heads"], width=setting["width"])
    model = GPT(shape, torch.Generator().manual_seed(seed))
    as_the_command(model, compiled="compiled" in setting)
    if "compiled" in setting:
        compile_decoding(model)
    return model


def optim_config() -> Any:
    """The same learning rate for everybody."""
    from minirlhf.trainers.optim import OptimConfig

    return OptimConfig(learning_rate=3e-4, weight_decay=0.0, warmup_steps=0, schedule="constant")


def random_ids(rows: int, tokens: int) -> Any:
    import torch

    return torch.randint(VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(1))


def tokenizer_of() -> Any:
    """512 ordinary tokens; the control tokens come after them, so that no model here can write the end token."""
    from minirlhf.data.shipped import shipped_path
    from minirlhf.tokenizers.bpe import train_bpe

    text = shipped_path("stories.txt").read_text(encoding="utf-8")[:100_000]
    return train_bpe([text], VOCABULARY + 5, "gpt4")


def prompt_batch(setting: dict[str, int], rows: int) -> Any:
    import torch

    from minirlhf.records import PromptBatch

    ids = random_ids(rows, setting["prompt"])
    return PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), ("",) * rows)


def timed(reports: Any, units: int, seconds: float) -> Measurement:
    """Units per second of a trainer that does so many of them per report."""

    def step() -> int:
        next(reports)
        return units

    return {"units_per_second": throughput(step, seconds, warmup=3)}  # compiling takes the first two


def all_written(reports: Any, setting: dict[str, int]) -> Any:
    """The same reports; raises RuntimeError when an answer was shorter than it should be."""
    for report in reports:
        if report.metrics["response_tokens_mean"] != setting["response"]:
            raise RuntimeError(f"answers of {report.metrics['response_tokens_mean']} tokens")
        yield report


def ppo(setting: dict[str, int], seconds: float, one_trunk: bool = False) -> Measurement:
    from minirlhf.models.heads import RewardModel, ValueModel
    from minirlhf.rollout.scoring import reward_model_scorer
    from minirlhf.trainers.optim import AdamW
    from minirlhf.trainers.ppo import PPOConfig, actor_critic, train_ppo

    policy, batch = network(setting), setting["episodes"]
    value_model = ValueModel(policy if one_trunk else network(setting, 1))
    reward_model = RewardModel(network(setting, 2))
    config = PPOConfig(
        steps=MANY,
        batch_size=batch,
        epochs=setting["epochs"],
        minibatches=1,
        max_new_tokens=setting["response"],
        missing_end_penalty=None,
        optim=optim_config(),
    )
    prompts = prompt_batch(setting, batch)
    optimizer = AdamW(actor_critic(policy, value_model).named_parameters(), config.optim)
    reference, scorer = copy.deepcopy(policy), reward_model_scorer(reward_model)
    reports = train_ppo(
        policy, value_model, reference, scorer, lambda step: prompts, tokenizer_of(), optimizer, config, seed=0
    )
    return timed(all_written(reports, setting), batch, seconds)


def grpo(setting: dict[str, int], seconds: float) -> Measurement:
    from minirlhf.rollout.scoring import reward_fn_scorer
    from minirlhf.trainers.grpo import GRPOConfig, train_grpo
    from minirlhf.trainers.optim import AdamW

    def share_of_ones(prompts: list[str], responses: list[str]) -> list[float]:
        return [response.count("e") / 32 for response in responses]

    policy, batch = network(setting), setting["episodes"]
    config = GRPOConfig(
        steps=MANY,
        batch_size=batch,
        group_size=setting["group"],
        epochs=1,
        minibatches=1,
        max_new_tokens=setting["response"],
        missing_end_penalty=None,
        kl_coef=0.04,
        optim=optim_config(),
    )
    prompts = prompt_batch(setting, batch // setting["group"])
    optimizer, reference = AdamW(policy.named_parameters(), config.optim), copy.deepcopy(policy)
    scorer = reward_fn_scorer(share_of_ones)
    reports = train_grpo(policy, reference, scorer, lambda step: prompts, tokenizer_of(), optimizer, config, seed=0)
    return timed(all_written(reports, setting), batch, seconds)


def parts(rows: int, size: int | None) -> list[slice]:
    """The micro-batches of a step, as the stages make them."""
    size = size or rows
    return [slice(start, start + size) for start in range(0, rows, size)]


def dpo(setting: dict[str, int], seconds: float) -> Measurement:
    import torch

    from minirlhf.records import TokenBatch
    from minirlhf.trainers.dpo import DPOConfig, train_dpo
    from minirlhf.trainers.optim import AdamW

    policy, count = network(setting), setting["pairs"]
    config = DPOConfig(batch_size=count, optim=optim_config())
    ids = random_ids(2 * count, setting["prompt"] + setting["response"])
    mask = (torch.arange(ids.shape[1] - 1) >= setting["prompt"] - 1).expand(count, -1)
    batches = [
        (TokenBatch(ids[:count][rows], mask[rows]), TokenBatch(ids[count:][rows], mask[rows]))
        for rows in parts(count, config.micro_batch_size)
    ]
    optimizer, reference = AdamW(policy.named_parameters(), config.optim), copy.deepcopy(policy)
    return timed(train_dpo(policy, reference, lambda step: batches, optimizer, config, MANY), count, seconds)


def reward(setting: dict[str, int], seconds: float) -> Measurement:
    import torch

    from minirlhf.models.heads import RewardModel
    from minirlhf.records import PreferenceBatch
    from minirlhf.trainers.optim import AdamW
    from minirlhf.trainers.reward import RewardConfig, train_reward

    model, count = RewardModel(network(setting)), setting["pairs"]
    config = RewardConfig(batch_size=count, micro_batch_size=8, optim=optim_config())  # as in the quickstart
    ids = random_ids(2 * count, setting["prompt"] + setting["response"])
    real = torch.ones_like(ids[:count], dtype=torch.bool)
    batches = [
        PreferenceBatch(ids[:count][rows], real[rows], ids[count:][rows], real[rows])
        for rows in parts(count, config.micro_batch_size)
    ]
    optimizer = AdamW(model.named_parameters(), config.optim)
    return timed(train_reward(model, lambda step: batches, optimizer, config, MANY), count, seconds)


def sft(setting: dict[str, int], seconds: float) -> Measurement:
    import torch

    from minirlhf.records import TokenBatch
    from minirlhf.trainers.optim import AdamW
    from minirlhf.trainers.sft import SftConfig, train_sft

    model, rows, tokens = network(setting), setting["rows"], setting["tokens"]
    config = SftConfig(batch_size=rows, micro_batch_size=8, optim=optim_config())  # as in the quickstart
    ids, mask = random_ids(rows, tokens + 1), torch.ones(rows, tokens, dtype=torch.bool)
    batches = [TokenBatch(ids[part], mask[part]) for part in parts(rows, config.micro_batch_size)]
    optimizer = AdamW(model.named_parameters(), config.optim)
    return timed(train_sft(model, lambda step: batches, optimizer, config, MANY), rows * tokens, seconds)


# The bound as a worker


def passes(
    trainer: str, setting: dict[str, int], at_once: int, one_trunk: bool = False
) -> list[tuple[list[list[Product]], bool]]:
    """The passes of one step with so many rows at once, network by network: (passes, with their backward pass?)."""
    shape = Shape(setting["layers"], setting["heads"], setting["width"], VOCABULARY)
    one_number = Shape(setting["layers"], setting["heads"], setting["width"], 1)
    prompt, response = setting["prompt"], setting["response"]
    read = prompt + response - 1  # the last token is predicted, not read

    def rows_of(of: Shape, rows: int, tokens: int, outputs: int) -> list[list[Product]]:
        return [pass_products(of, at_once, tokens, outputs)] * (rows // at_once)

    if trainer == "sft":
        return [(rows_of(shape, setting["rows"], setting["tokens"], setting["tokens"]), True)]
    if trainer == "reward":
        return [(rows_of(one_number, 2 * setting["pairs"], prompt + response, 1), True)]
    if trainer == "dpo":
        answers = rows_of(shape, 2 * setting["pairs"], read, response)
        return [(answers, False), (answers, True)]  # reference and policy
    rows = setting["episodes"]
    answers = rows_of(shape, rows, read, response)
    rollout = [(generation_passes(shape, rows, prompt, response), False), (answers, False)]  # and the reference
    if trainer == "grpo":
        return [*rollout, (answers, True)]
    values, scores = rows_of(one_number, rows, read, response), rows_of(one_number, rows, prompt + response, 1)
    update = [(answers, True)] if one_trunk else [(answers, True), (values, True)]
    return [*rollout, (values, False), (scores, False)] + update * setting["epochs"]


def units_of(trainer: str, setting: dict[str, int]) -> int:
    """What one step does: episodes, pairs or tokens."""
    if trainer == "sft":
        return setting["rows"] * setting["tokens"]
    return setting["pairs" if trainer in ("dpo", "reward") else "episodes"]


def bound(trainer: str, setting: dict[str, int], seconds: float, one_trunk: bool = False) -> Measurement:
    """The matrix products of the trainer's step and nothing else; all rows at once or 16, whichever is faster."""
    units, measured = units_of(trainer, setting), []
    for at_once in (16, setting["rows"] if trainer == "sft" else 64):
        networks = passes(trainer, setting, at_once, one_trunk)
        distinct = [pair for place, pair in enumerate(networks) if pair not in networks[:place]]
        works = [prepare(*pair) for pair in distinct]
        order = [works[distinct.index(pair)] for pair in networks]

        def step(order: Any = order) -> int:
            for work in order:
                work()
            return units

        rate = throughput(step, seconds / 2, warmup=1)
        work = sum(flops(products, backward) for products, backward in networks) / units
        measured.append({"units_per_second": rate, "gflop_per_second": rate * work / 1e9, "rows_at_once": at_once})
    return max(measured, key=lambda each: each["units_per_second"])


# The benchmark


def jobs_of(trainer: str, setting: dict[str, int], seconds: float, compiled: bool = True) -> dict[str, Job]:
    """Everybody who takes part; PPO on one trunk is another network, with a bound of its own."""
    arguments: dict[str, Any] = {"setting": setting, "seconds": seconds}
    kinds = {"": arguments}
    if compiled:
        kinds[", compiled"] = arguments | {"setting": setting | {"compiled": 1}}
    jobs = {f"minirlhf{kind}": Job("trainers", trainer, each) for kind, each in kinds.items()}
    if trainer == "ppo":
        jobs["TRL 1.10"] = Job("trl_peers", trainer, arguments, PPO_PYTHON)
    else:
        jobs["TRL"] = Job("trl_peers", trainer, arguments)
    jobs[BOUND] = Job("trainers", "bound", {"trainer": trainer, **arguments})
    if trainer == "ppo":
        shared = {"one_trunk": True}
        jobs |= {f"minirlhf, one trunk{kind}": Job("trainers", "ppo", each | shared) for kind, each in kinds.items()}
        jobs[f"{BOUND}, one trunk"] = Job("trainers", "bound", {"trainer": trainer, **arguments, **shared})
    return jobs


def growth(quick: bool) -> list[Growth]:
    """A step of PPO with more episodes and with longer answers."""
    found = []
    for key, label, sizes in (
        ("episodes", "episodes in a batch", (64, 128, 256)),
        ("response", "tokens in an answer, 64 episodes", (16, 32, 64)),
    ):
        print(f"growth: {label}", flush=True)
        seconds: dict[str, list[tuple[float, float]]] = {}
        memory: dict[str, list[tuple[float, float]]] = {}
        for size in sizes[:2] if quick else sizes:
            setting = SETTING | {key: size}
            jobs = jobs_of("ppo", setting, 0.1 if quick else 2.0, compiled=False)
            for name, (run,) in interleave(jobs, 1, "units_per_second").items():
                seconds.setdefault(name, []).append((size, setting["episodes"] / run["units_per_second"]))
                if not name.startswith("bound"):
                    memory.setdefault(name, []).append((size, run["peak_rss_mib"]))
        found.append(Growth("PPO: a rollout and its 4 epochs", label, "seconds", seconds))
        found.append(Growth("PPO: memory, libraries included", label, "MiB", memory))
    return found


def main() -> None:
    flags = options(__doc__, 3, (*UNITS, "growth")).parse_args()
    rounds, tables, bars = 1 if flags.quick else flags.rounds, [], []
    more = {"ppo_versions": versions(PPO_PYTHON)} if PPO_PYTHON.exists() else {}
    for trainer, unit in UNITS.items():
        if not wanted(flags, trainer):
            continue
        print(trainer, flush=True)
        seconds = 0.1 if flags.quick else 6.0 if trainer == "ppo" else 3.0
        jobs = jobs_of(trainer, SETTING, seconds, compiled=not flags.quick)
        runs = interleave(jobs, rounds, "units_per_second")
        unit = f"{unit}_per_second"
        runs = {name: [{unit: run.pop("units_per_second"), **run} for run in each] for name, each in runs.items()}
        name = trainer.upper() if trainer != "reward" else "Reward model"
        table = Table(name, unit, runs)
        peer = "TRL 1.10" if trainer == "ppo" else "TRL"
        tables.append(table)
        for kind in ("", ", compiled"):
            ours = f"minirlhf{kind}"
            bars.append(Bar(f"{name}, times TRL's {unit}{kind}", ratio(table, ours, peer), ">=", TARGETS[trainer]))
            bars.append(Bar(f"{name}, memory over TRL's{kind}", ratio(table, ours, peer, "peak_rss_mib"), "<=", MEMORY))
            print(f"{name}{kind}: {ratio(table, ours, BOUND):.2f} of the matrix-product bound")
            if trainer == "ppo":
                ours = f"minirlhf, one trunk{kind}"
                value, title = ratio(table, ours, peer), "PPO on one trunk, a smaller network, times TRL's"
                bars.append(Bar(f"{title} episodes_per_second{kind}", value, ">=", ONE_TRUNK))
                print(f"PPO on one trunk{kind}: {ratio(table, ours, f'{BOUND}, one trunk'):.2f} of its bound")
        write("trainers", TITLE, flags, tables, bars, done=False, **more)
    grown = growth(flags.quick) if wanted(flags, "growth") else []
    write("trainers", TITLE, flags, tables, bars, grown, **more)


if __name__ == "__main__":
    main()
