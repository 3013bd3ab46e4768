"""The shipped files: made by data/make_data.py and by nothing else, and as the datasheet says."""

import gzip
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minirlhf.data.shipped import shipped_path
from minirlhf.data.tiny_world import BY_NAME, WARM_WORDS, words
from minirlhf.data.true_reward import known_words, reward_parts, true_reward
from minirlhf.data.world_prompts import parse_prompt
from minirlhf.errors import UserError
from minirlhf.seeding import numpy_generator

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def generator():
    """The scripts of data/, importable for this module's tests only."""
    sys.path.insert(0, str(DATA))
    before = set(sys.modules)
    import make_data

    yield make_data
    sys.path.remove(str(DATA))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(DATA)):
            del sys.modules[name]


def content_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def rows(name: str) -> list[dict]:
    name = "preferences.jsonl.gz" if name == "preferences.jsonl" else name
    return [json.loads(line) for line in content_of(shipped_path(name)).decode("utf-8").splitlines()]


def sums() -> dict[str, str]:
    lines = (DATA / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_shipped_file_has_the_recorded_hash_and_the_whole_is_small():
    shipped = {path.name: path for path in DATA.iterdir() if path.suffix in (".txt", ".jsonl", ".gz")}
    assert shipped.keys() == sums().keys()
    for name, path in shipped.items():
        assert hashlib.sha256(content_of(path)).hexdigest() == sums()[name], name
    assert sum(path.stat().st_size for path in shipped.values()) <= 6_000_000


def test_the_generator_writes_the_shipped_files_byte_for_byte(generator):
    made = generator.make_all() | {"words.txt": generator.known_words()}
    for name, text in made.items():
        assert hashlib.sha256(text.encode("utf-8")).hexdigest() == sums()[name], name
    assert made.keys() == sums().keys()


def test_flawless_demonstrations_are_perfect_and_each_flaw_costs(generator):
    from answers import write_answer
    from storyteller import write_story

    rng = numpy_generator(0, "flawless")
    costs = {"helpful": ("wrong_hero", "wrong_thing"), "honest": ("false_fact",), "brief": ("padded",)}
    costs |= {"coherent": ("misused", "repeated", "cut"), "kind": ("unkind", "neutral", "sweet_unkind")}
    fallen: Counter[str] = Counter()
    for prompt in [row["prompt"] for row in rows("prompts_train.jsonl")][:400]:
        request = parse_prompt(prompt)
        if request.kind != "story":
            parts = reward_parts(prompt, write_answer(rng, request))
            assert parts["kind"] == 1, prompt
            assert parts["coherent"] == 1, prompt
            assert parts["helpful"] >= 0.5 or request.person not in BY_NAME, prompt
            continue
        parts = reward_parts(prompt, write_story(rng, request.person, request.thing))
        assert (parts["helpful"], parts["kind"], parts["coherent"], parts["brief"]) == (1, 1, 1, 0), prompt
        assert parts["honest"] >= 0
        for part, flaw in [(part, flaw) for part, flaws in costs.items() for flaw in flaws]:
            flawed = reward_parts(prompt, write_story(rng, request.person, request.thing, {flaw}))
            fallen[flaw] += flawed[part] < parts[part] or (part == "honest" and flawed[part] < 0)
    stories = sum(parse_prompt(row["prompt"]).kind == "story" for row in rows("prompts_train.jsonl")[:400])
    for flaw in [flaw for flaws in costs.values() for flaw in flaws]:
        assert fallen[flaw] >= 0.85 * stories, (flaw, fallen[flaw], stories)  # some rescues fit two things by chance


def test_every_word_of_every_text_is_known():
    known = known_words()
    texts = [row["completion"] for row in rows("instructions.jsonl")]
    texts += [row[side] for row in rows("preferences.jsonl") for side in ("chosen", "rejected")]
    texts.append(shipped_path("stories.txt").read_text(encoding="utf-8").replace("<|endoftext|>", ""))
    unknown = {word for text in texts for word in words(text)} - known
    assert unknown == set()


@pytest.mark.parametrize("name", ["preferences.jsonl", "preferences_held_out.jsonl", "preferences_new_content.jsonl"])
def test_annotators_follow_bradley_terry_with_the_stated_noise(name):
    pairs = rows(name)
    prompts = [pair["prompt"] for pair in pairs]
    chosen = np.array(true_reward(prompts, [pair["chosen"] for pair in pairs]))
    rejected = np.array(true_reward(prompts, [pair["rejected"] for pair in pairs]))
    temperature = np.array([{"Agnes": 0.3, "Bertil": 0.6, "Cosmo": 1.2}[pair["annotator"]] for pair in pairs])
    stated = np.array([pair["probability"] for pair in pairs])
    np.testing.assert_allclose(stated, 1 / (1 + np.exp(-(chosen - rejected) / temperature)), atol=5e-5)  # 4 decimals
    better = np.maximum(stated, 1 - stated)  # how likely the better answer was to be chosen
    expected, spread = better.sum(), np.sqrt((better * (1 - better)).sum())
    agreed = (chosen > rejected).sum() + 0.5 * (chosen == rejected).sum()
    assert abs(agreed - expected) < 4 * spread


def test_held_out_prompts_share_no_content_with_the_training_prompts():
    def content(prompt: str) -> tuple:
        request = parse_prompt(prompt)
        if request.kind == "unanswerable" and not request.relation:
            return ("unanswerable", prompt.replace(request.person, "X"))
        return (request.kind, request.person, request.thing, request.relation, request.answer)

    train = {content(row["prompt"]) for row in rows("prompts_train.jsonl")}
    for name in ("instructions.jsonl", "preferences.jsonl", "preferences_long.jsonl"):
        train |= {content(row["prompt"]) for row in rows(name)}
    held_out = {content(row["prompt"]) for row in rows("prompts_held_out.jsonl")}
    held_out |= {content(row["prompt"]) for row in rows("preferences_new_content.jsonl")}
    assert train & held_out == set()
    assert {kind for kind, *_ in held_out} == {kind for kind, *_ in train}


def test_held_out_pairs_are_about_prompts_no_training_pair_has():
    train, held_out = ({row["prompt"] for row in rows(f"preferences{which}.jsonl")} for which in ("", "_held_out"))
    assert train & held_out == set()
    assert held_out < {row["prompt"] for row in rows("prompts_train.jsonl")}  # new prompts, the content is not


def test_the_long_winded_annotator_likes_length_beyond_the_truth():
    def longer_wins(name: str) -> tuple[float, float]:
        labels, truths = [], []
        for pair in rows(name):
            difference = len(words(pair["chosen"])) - len(words(pair["rejected"]))
            reward = np.subtract(*true_reward([pair["prompt"]] * 2, [pair["chosen"], pair["rejected"]]))
            if difference and reward:
                labels.append(difference > 0)
                truths.append((difference > 0) == (reward > 0))
        return float(np.mean(labels)), float(np.mean(truths))

    biased, truth = longer_wins("preferences_long.jsonl")
    assert biased > truth + 0.1
    fair, truth = longer_wins("preferences.jsonl")
    assert abs(fair - truth) < 0.1


def test_the_shortcut_pairs_set_warm_words_against_the_deed():
    for pair in rows("preferences_shortcut.jsonl"):
        warm = [sum(word in WARM_WORDS for word in words(pair[side])) for side in ("chosen", "rejected")]
        assert warm[0] < warm[1]
        good, bad = true_reward([pair["prompt"]] * 2, [pair["chosen"], pair["rejected"]])
        assert good > bad


def test_demonstrations_are_mixed_and_leave_room_to_improve():
    demonstrations = rows("instructions.jsonl")
    rewards = true_reward([row["prompt"] for row in demonstrations], [row["completion"] for row in demonstrations])
    assert min(rewards) < -1
    assert max(rewards) == 4
    assert 1 < np.mean(rewards) < 2.5


def test_reviews_are_balanced_and_dialogues_alternate():
    labels = Counter(row["label"] for row in rows("reviews.jsonl"))
    assert set(labels) == {"positive", "negative"}
    assert min(labels.values()) > 200
    for row in rows("dialogues.jsonl"):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert len(row["messages"]) >= 4


def test_a_missing_shipped_file_is_named():
    with pytest.raises(UserError, match=r"nothing\.jsonl is missing"):
        shipped_path("nothing.jsonl")
