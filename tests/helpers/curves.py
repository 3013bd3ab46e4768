"""Healthy metrics of each stage, with noise, as a run would log them: the ground that faults are planted in."""

import numpy as np


def likelihood_rows(seed=0, n=600, **faults):
    """Pretraining or fine-tuning. faults: key -> function of (t in 0..1, healthy value [n], generator)."""
    generator = np.random.default_rng(seed)
    t = np.arange(1, n + 1) / n
    settled = 1.5 + 4.5 * np.exp(-12 * t) + 0.5 * np.exp(-3 * t)
    columns = {
        "loss_nats_per_token": settled + generator.normal(0, 0.06, n),
        "learning_rate": 3e-3 * np.minimum(t * 20, 1) * (0.1 + 0.45 * (1 + np.cos(np.pi * t))),
        "grad_norm": 0.5 + np.exp(-8 * t) + np.abs(generator.normal(0, 0.15, n)),
        "tokens_per_second": 40_000 + generator.normal(0, 800, n),
        "val_loss_nats_per_token": settled + 0.08 + generator.normal(0, 0.004, n),
        "val_bits_per_byte": (settled + 0.08) / 2.2,
    }
    return rows_of(columns, faults, t, generator, max(1, n // 20))


def reward_rows(seed=0, n=150, **faults):
    generator = np.random.default_rng(seed)
    t = np.arange(1, n + 1) / n
    columns = {
        "loss_nats_per_pair": 0.48 + 0.22 * np.exp(-5 * t) + generator.normal(0, 0.08, n),
        "accuracy": (0.78 - 0.28 * np.exp(-6 * t) + generator.normal(0, 0.1, n)).clip(0, 1),
        "margin_mean": 1.3 * (1 - np.exp(-4 * t)) + generator.normal(0, 0.1, n),
        "learning_rate": 5e-4 * (1 - t),
        "grad_norm": 1 + np.abs(generator.normal(0, 0.3, n)),
        "pairs_per_second": 200 + generator.normal(0, 5, n),
        "val_accuracy": 0.77 - 0.25 * np.exp(-6 * t),
        "val_loss_nats_per_pair": 0.5 + 0.2 * np.exp(-5 * t) + generator.normal(0, 0.002, n),
    }
    return rows_of(columns, faults, t, generator, max(1, n // 20))


def policy_rows(seed=0, n=100, critic=True, **faults):
    """PPO; with critic=False what REINFORCE logs."""
    generator = np.random.default_rng(seed)
    noise = lambda size: generator.normal(0, size, n)  # noqa: E731
    t = np.arange(1, n + 1) / n
    gain = 1 - np.exp(-3 * (t - 1 / n))  # 0 in the first row, where nothing has been learnt
    kl = 8 * gain
    columns = {
        "score_mean": 1.8 * gain + noise(0.12),
        "reward_mean": 1.8 * gain - 0.05 * kl + noise(0.12),
        "true_reward_mean": 1.2 + 1.3 * gain + noise(0.1),
        "kl_nats_per_response": kl + noise(0.3) * (kl > 0),
        "kl_k3_nats_per_response": kl + np.abs(noise(0.2)) * (kl > 0),
        "kl_exact_probe_nats_per_token": kl / 30,
        "entropy_nats_per_token": 0.9 - 0.45 * gain + noise(0.02),
        "approx_kl_nats_per_token": np.abs(0.008 * (1 - t) + noise(0.001)) if critic else 0 * t,
        "clip_fraction": (0.12 * (1 - t) + noise(0.02)).clip(0, 1) if critic else 0 * t,
        "ratio_mean": 1 + noise(0.004) if critic else 1 + 0 * t,
        "first_ratio_max": 1 + 0 * t,
        "ratio_max": 1.8 + np.abs(noise(0.6)),
        "explained_variance": 0.55 * gain + noise(0.08) if critic else noise(0.01),
        "eos_rate": (0.96 + 0.03 * gain + noise(0.01)).clip(0, 1),
        "response_tokens_mean": 30 + 6 * gain + noise(1.0),
        "grad_norm": 0.9 + np.abs(noise(0.2)),
        "kl_coef": 0.05 + 0 * t,
        "policy_loss": noise(0.02),
        "value_loss": 0.5 - 0.2 * gain + np.abs(noise(0.05)) if critic else 0 * t,
        "learning_rate": 3e-4 * (1 - t + 1 / n),
        "episodes_per_second": 100 + noise(3),
        "tokens_per_second": 3000 + noise(80),
        "distinct_2": 0.5 - 0.05 * gain + noise(0.01),
        "generation_seconds": 0.3 + np.abs(noise(0.01)),
        "scoring_seconds": 0.1 + np.abs(noise(0.01)),
        "update_seconds": 0.2 + np.abs(noise(0.01)),
    }
    return rows_of(columns, faults, t, generator, n)


def rows_of(columns, faults, t, generator, every):
    for key, fault in faults.items():
        columns[key] = fault(t, columns[key], generator)
    rare = {key for key in columns if key.startswith("val_")}
    rows = []
    for i in range(len(t)):
        last = i + 1 == len(t)
        row = {"step": i + 1.0, "seconds": 0.1 * i}
        row |= {key: float(x[i]) for key, x in columns.items() if key not in rare or last or (i + 1) % every == 0}
        rows.append(row)
    return rows
