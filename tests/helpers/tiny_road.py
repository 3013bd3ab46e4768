"""The whole road in miniature, for tests of the stages and of the command line: a few lines, models of nothing."""

import json
from pathlib import Path

SHAPE = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "48"]
NAMES = ("Ada", "Bo", "Cy", "Dee", "Eli", "Fay")


def write_data(folder: Path) -> None:
    """text.txt, chats.jsonl, pairs.jsonl, prompts.jsonl and a reward function in my_judge.py."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} has a {thing}. The {thing} is red.\n" for name in NAMES for thing in ("hat", "cup", "kite"))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    chats = [{"prompt": f"What has {name}?", "completion": f"{name} has a hat."} for name in NAMES]
    pairs = [{"prompt": f"Is {name} in?", "chosen": "Yes, come in!", "rejected": f"no {name}"} for name in NAMES * 2]
    pairs = [pair | {"chosen": pair["chosen"] + "!" * (i % 3)} for i, pair in enumerate(pairs)]
    for name, rows in {"chats": chats, "pairs": pairs, "prompts": [{"prompt": row["prompt"]} for row in chats]}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judge = "def score(prompts, responses):\n    return [r.count('a') - 0.1 * len(r) for r in responses]\n"
    (folder / "my_judge.py").write_text(judge, encoding="utf-8")


def command(stage: str, data: Path, models: Path, out: Path) -> list[str]:
    """The words after `minirlhf` for a few steps of a stage. Models stand in models/base, models/sft, models/reward."""
    common = ["--out", str(out), "--device", "cpu", "--seed", "5", "--quiet"]
    policy = ["--model", str(models / "sft"), "--data", str(data / "prompts.jsonl"), "--reward", str(models / "reward")]
    policy += ["--steps", "5", "--batch-size", "4", "--max-new-tokens", "8"]
    words = {
        "pretrain": [
            "--data",
            str(data / "text.txt"),
            *SHAPE,
            "--steps",
            "8",
            "--batch-size",
            "2",
            "--dropout",
            "0.1",
        ],
        "sft": [
            "--model",
            str(models / "base"),
            "--data",
            str(data / "chats.jsonl"),
            "--epochs",
            "8",
            "--batch-size",
            "4",
        ],
        "reward": [
            "--model",
            str(models / "sft"),
            "--data",
            str(data / "pairs.jsonl"),
            "--epochs",
            "3",
            "--batch-size",
            "4",
        ],
        "reinforce": policy,
        "grpo": [*policy, "--group-size", "2", "--epochs", "2", "--minibatches", "2"],
        "dpo": [
            "--model",
            str(models / "sft"),
            "--data",
            str(data / "pairs.jsonl"),
            "--epochs",
            "8",
            "--batch-size",
            "4",
            "--micro-batch-size",
            "3",
        ],
        "ppo": [*policy, "--epochs", "2", "--minibatches", "2", "--kl-target", "1.0"],
    }
    held_out = ["--held-out-fraction", "0.34"] if stage in ("sft", "reward", "dpo") else []
    return [stage, *words[stage], *held_out, *common]
