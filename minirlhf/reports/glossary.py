"""What every logged number means, what is healthy, and what to do when it is not.

One row per metric key; a test compares the rows with the keys the trainers log.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class GlossaryRow:
    """Three sentences a newcomer can act on."""

    meaning: str
    healthy: str
    what_to_do: str


GLOSSARY: dict[str, GlossaryRow] = {
    # every stage
    "step": GlossaryRow(
        "Which update of the weights this row belongs to.",
        "Counts up by one.",
        "Nothing; use it to line curves up.",
    ),
    "seconds": GlossaryRow(
        "Time since the run began, on the clock on the wall.",
        "Grows evenly.",
        "A jump means the machine was busy with something else, or slept.",
    ),
    "learning_rate": GlossaryRow(
        "How large a step the optimizer takes, after warm-up and decay.",
        "Rises during warm-up, then falls to a small share of its peak.",
        "If the loss jumps while it is high, lower the peak; if nothing moves, raise it.",
    ),
    "grad_norm": GlossaryRow(
        "Length of the whole gradient before it is clipped.",
        "Steady after the first steps, mostly within a factor of three of its median.",
        "If it grows and grows, lower the learning rate; if it is zero, look for a mask that hides every token.",
    ),
    "tokens_per_second": GlossaryRow(
        "Tokens the model learnt from (or wrote, in reinforcement learning) per second.",
        "Steady; the level depends on the machine and the model's size.",
        "If it sinks, look for other programs on the machine or for answers that grow longer.",
    ),
    "model_flops_per_second": GlossaryRow(
        "Arithmetic per second that the model asks for, forward and backward; padding does not count.",
        "Steady; some tens of billions on a laptop's core, hundreds of trillions on a large GPU.",
        "If it is low on your machine, make batches larger, try --compile, and --profile to see where time goes.",
    ),
    "model_flop_utilisation": GlossaryRow(
        "The same as a share of the most that the GPU could do in this precision by its data sheet (MFU).",
        "0.3 to 0.6 for a large model on a large GPU; a small one leaves most of the GPU idle.",
        "If it is low, use --precision bfloat16, --compile, --attend fused and larger batches.",
    ),
    "compile_seconds": GlossaryRow(
        "What the first steps took beyond as many usual ones, because --compile made its code in them.",
        "Some seconds up to a minute, once in every process.",
        "If it is a large part of the run, leave --compile away: it pays in long runs.",
    ),
    # pretraining and supervised fine-tuning
    "loss_nats_per_token": GlossaryRow(
        "How surprised the model is by the next token of its training text; 0 would be certainty.",
        "Starts near the logarithm of the vocabulary's size (a blind guess), falls fast, then slowly; noise is normal.",
        "Flat from the start: raise the learning rate or check the data. Rising: lower the learning rate.",
    ),
    "val_loss_nats_per_token": GlossaryRow(
        "The same surprise on text the model never trained on.",
        "Falls with the training loss and stays a little above it.",
        "If it turns upwards while the training loss falls, the model is learning by heart: stop earlier or add data.",
    ),
    "val_bits_per_byte": GlossaryRow(
        "Held-out surprise per byte of text, in bits, so that different tokenizers can be compared.",
        "Plain English: above 2 is a beginner, 1 is good, 8 would be pure noise.",
        "Compare runs with this number whenever their tokenizers differ.",
    ),
    # reward model
    "loss_nats_per_pair": GlossaryRow(
        "How surprised the reward model is by which of two answers was preferred; tossing a coin costs 0.693.",
        "Falls below 0.69; how far depends on how noisy the labels are.",
        "Stuck at 0.69: start from a better model, use more pairs, or check that chosen and rejected really differ.",
    ),
    "accuracy": GlossaryRow(
        "Share of this batch's pairs where the preferred answer got the higher score.",
        "Climbs from one half towards the best the noisy labels allow.",
        "Near 1 while the held-out accuracy stays low means learning by heart: train shorter.",
    ),
    "val_accuracy": GlossaryRow(
        "The same share on pairs the reward model never saw.",
        "Clearly above one half, and below the best possible, which label noise limits.",
        "At one half it knows nothing and must not be optimised against; near 1 look for a give-away in the data.",
    ),
    "val_loss_nats_per_pair": GlossaryRow(
        "Surprise on held-out pairs; it also punishes being sure and wrong.",
        "Below 0.693 and still falling.",
        "Rising while accuracy stands still means over-confidence: train shorter or lower the learning rate.",
    ),
    "margin_mean": GlossaryRow(
        "How much higher the preferred answer scores than the other, on average.",
        "Positive and growing slowly.",
        "Growing without end means over-confidence; zero means nothing was learnt.",
    ),
    "pairs_per_second": GlossaryRow(
        "Preference pairs learnt from per second.",
        "Steady.",
        "If it sinks, look for other programs on the machine.",
    ),
    # direct preference optimisation
    "objective": GlossaryRow(
        "The loss that is descended, in its own unit: for DPO the same as loss_nats_per_pair, for IPO squared nats.",
        "Falls from its first value, which is log 2 for DPO.",
        "If it rises, lower the learning rate; to compare losses with each other, look at loss_nats_per_pair.",
    ),
    "chosen_reward_mean": GlossaryRow(
        "Implicit reward of the preferred answers: beta times how much likelier than for the reference they became.",
        "Begins at 0 and stays above rejected_reward_mean; falling somewhat below 0 is common.",
        "If it falls as fast as rejected_reward_mean, all answers of the pairs become unlikely: raise beta.",
    ),
    "rejected_reward_mean": GlossaryRow(
        "Implicit reward of the answers that were not preferred.",
        "Begins at 0 and falls.",
        "If it falls without end, the policy is only fleeing: raise beta or lower the learning rate.",
    ),
    "log_ratio_nats_per_response": GlossaryRow(
        "Log-probability of the answers of the pairs, under the policy minus under the reference; both kinds together.",
        "Begins at 0 and moves by a few nats. It is no KL, because the policy did not write these answers.",
        "Far below 0: the policy has left what the pairs contain; raise beta, lower the learning rate, stop earlier.",
    ),
    # reinforcement learning
    "score_mean": GlossaryRow(
        "What the reward model (the proxy for human judgement) gives to the policy's answers, one number per answer.",
        "Rises, fast at first, then levels off.",
        "Flat: raise the learning rate or lower kl_coef. Rising while the samples get worse: reward hacking.",
    ),
    "score_std_in_group": GlossaryRow(
        "How far the scores of the answers to one prompt lie apart: the standard deviation of a group, on average.",
        "Clearly above 0; it shrinks as the answers become equally good.",
        "At 0 all answers to a prompt score the same and teach nothing: raise the temperature or the group size.",
    ),
    "reward_mean": GlossaryRow(
        "Score minus the KL penalty, per answer: what the policy really maximises.",
        "Rises, a little below score_mean.",
        "Falling while score_mean rises means the penalty outweighs the gain: lower kl_coef.",
    ),
    "true_reward_mean": GlossaryRow(
        "What the answers are really worth, where the world is ours and can be checked; training never sees it.",
        "Rises together with score_mean.",
        "If it falls while score_mean rises, stop at its peak, raise kl_coef, or retrain the reward model.",
    ),
    "kl_nats_per_response": GlossaryRow(
        "How far the policy has moved from its start: the log-ratio summed over an answer, on average (estimator k1).",
        "Zero at the first step, then grows slowly; a few nats to a few tens for short answers.",
        "If it runs away, raise kl_coef or lower the learning rate. Clearly below zero means a bug or wrong sampling.",
    ),
    "kl_k3_nats_per_response": GlossaryRow(
        "The same distance by an estimator that is never negative and less noisy for small moves (k3).",
        "Close to kl_nats_per_response while both are small.",
        "If the two part ways, a few rare tokens dominate: look at the samples.",
    ),
    "kl_exact_probe_nats_per_token": GlossaryRow(
        "The distance computed without sampling, over the whole vocabulary, on a fixed batch.",
        "Zero at the first step, never negative, grows smoothly.",
        "Trust it when the sampled estimates are noisy.",
    ),
    "kl_coef": GlossaryRow(
        "The price of one nat of KL in units of reward.",
        "Constant, or moving gently when it is adaptive.",
        "Raise it when the text degenerates, lower it when nothing improves.",
    ),
    "entropy_nats_per_token": GlossaryRow(
        "How undecided the policy is about its next token.",
        "Falls slowly and stays well above zero.",
        "Near zero: it says the same thing every time; raise kl_coef, lower the learning rate or the number of epochs.",
    ),
    "approx_kl_nats_per_token": GlossaryRow(
        "How far this update moved the policy from the one that wrote the answers.",
        "About 0.001 to 0.02.",
        "Above 0.1 the data is stale: lower the learning rate or do fewer epochs per batch.",
    ),
    "clip_fraction": GlossaryRow(
        "Share of tokens whose probability moved beyond the clip range.",
        "0 in the first minibatch, then 0.01 to 0.3.",
        "Above 0.5 updates are too large: lower the learning rate. Always 0: they are too small.",
    ),
    "ratio_mean": GlossaryRow(
        "New probability over old probability of the tokens written, averaged over an update.",
        "Within a few hundredths of 1.",
        "Away from 1 by a tenth, updates are too large: lower the learning rate or do fewer epochs per batch.",
    ),
    "ratio_max": GlossaryRow(
        "The largest of these ratios in this step.",
        "Below about 5.",
        "In the hundreds: lower the learning rate; one token is pulling the whole update.",
    ),
    "first_ratio_max": GlossaryRow(
        "The largest of these ratios in the first minibatch of a step, before anything was learnt from it.",
        "1 to three digits; with --precision bfloat16 up to a tenth above, by rounding alone.",
        "Away from 1, rollout and update disagree: dropout left on, two temperatures, top-k or top-p in the rollout.",
    ),
    "explained_variance": GlossaryRow(
        "How much of the spread of the returns the critic foresees; 1 is all, 0 none.",
        "Climbs above 0 within the first dozens of steps.",
        "At or below 0 to the end, the critic learns nothing: raise its learning rate or give it a better start.",
    ),
    "policy_loss": GlossaryRow(
        "The clipped objective the policy descends. Its level says little: advantages are rescaled every step.",
        "Small, around zero, with no trend. That is normal.",
        "Judge the run by score and KL, not by this.",
    ),
    "value_loss": GlossaryRow(
        "The critic's squared error in units of reward squared.",
        "Falls at first, then follows the spread of the scores.",
        "Exploding: lower the learning rate, or normalise the reward model's scores.",
    ),
    "eos_rate": GlossaryRow(
        "Share of answers that ended by themselves instead of being cut off at the length limit.",
        "Above 0.95 after fine-tuning, and it stays there.",
        "Falling: raise the penalty for a missing end, or allow more tokens.",
    ),
    "response_tokens_mean": GlossaryRow(
        "Mean length of the answers, the end token included.",
        "Stays within a factor of two of where it began.",
        "Growing without need: the reward model likes length. Shrinking to a few tokens: it punishes saying anything.",
    ),
    "distinct_2": GlossaryRow(
        "Share of different token pairs among all token pairs of a batch of answers: variety.",
        "Not below 0.8 of where it began.",
        "Falling means the policy repeats one trick: raise kl_coef or stop earlier.",
    ),
    "episodes_per_second": GlossaryRow(
        "Answers written, scored and learnt from per second.",
        "Steady.",
        "If it sinks, answers are growing longer or the machine is busy.",
    ),
    "generation_seconds": GlossaryRow(
        "Time of a step that went into writing the answers, token by token.",
        "Grows with the longest answer of the batch and is often the largest share.",
        "Too long: fewer max_new_tokens, or larger batches, which write more answers in the same time.",
    ),
    "scoring_seconds": GlossaryRow(
        "Time of a step that went into judging the answers: reference, critic and reward model read each of them.",
        "Less than the update takes.",
        "Too long: look at a reward function of your own; it is called once per step.",
    ),
    "update_seconds": GlossaryRow(
        "Time of a step that went into learning from the answers, all passes together.",
        "Grows with the number of epochs and with the length of the answers.",
        "Too long: fewer epochs, or a smaller model as critic.",
    ),
}


def rows_for(keys: Iterable[str]) -> dict[str, GlossaryRow]:
    """The glossary's rows for these keys, in the glossary's order; keys without a row are left out."""
    shown = set(keys)
    return {key: row for key, row in GLOSSARY.items() if key in shown}
