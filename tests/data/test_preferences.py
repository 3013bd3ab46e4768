"""Cleaning pairs: against a definition that looks at all pairs at once, and by order-free properties."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.preferences import clean_pairs
from minirlhf.data.reports import Tally
from minirlhf.data.split import prompt_key, split_by_prompt
from minirlhf.records import Conversation, Labelled, Preference, Prompt, Turn

WORDS = st.sampled_from(["", " ", "a", "b", " a", "c\n"])
PAIRS = st.lists(st.tuples(st.sampled_from(["p", "q", "p "]), WORDS, WORDS), max_size=12)


def pairs_of(triples):
    return [Preference((Turn("user", p),), c, r, f"a.jsonl:{i}") for i, (p, c, r) in enumerate(triples, start=1)]


@settings(max_examples=100)
@given(PAIRS)
def test_exactly_the_useful_pairs_are_kept(triples):
    tally = Tally()
    kept = clean_pairs(pairs_of(triples), tally)
    stripped = [(p.strip(), c.strip(), r.strip()) for p, c, r in triples]
    useful = [
        i
        for i, (p, c, r) in enumerate(stripped)
        if c and r and c != r and (p, c, r) not in stripped[:i] and (p, r, c) not in stripped
    ]
    assert [pair.source for pair in kept] == [f"a.jsonl:{i + 1}" for i in useful]
    assert len(kept) + sum(tally.dropped.values()) == len(triples)  # nothing vanishes uncounted


def test_each_reason_is_counted_with_its_first_example():
    triples = [
        ("p", "a", "b"),
        ("p", "a", "a "),
        ("p", "", "b"),
        ("p", "a", "b"),
        ("q", "a", "b"),
        ("q", "b", "a"),
        ("", "a", "b"),
    ]
    tally = Tally()
    kept = clean_pairs(pairs_of(triples), tally)
    assert [pair.source for pair in kept] == ["a.jsonl:1"]
    assert tally.dropped == {
        "identical answers": 1,
        "empty answer": 1,
        "duplicate pair": 1,
        "contradictory pair (both orders appear)": 2,
        "empty prompt": 1,
    }
    assert tally.first["contradictory pair (both orders appear)"] == "a.jsonl:5"
    assert tally.first["duplicate pair"] == "a.jsonl:4"


ITEMS = st.lists(st.tuples(st.integers(0, 30), st.text("ab", min_size=1, max_size=2)), min_size=1, max_size=40)


@settings(max_examples=100)
@given(ITEMS, st.floats(0.01, 0.9), st.integers(0, 5), st.randoms())
def test_no_prompt_is_on_both_sides_and_order_does_not_matter(items, fraction, seed, random):
    prompts = [Prompt((Turn("user", f"prompt {n}"),), answer) for n, answer in items]
    different = len({n for n, _ in items})
    if different < 2:
        return
    train, held_out = split_by_prompt(prompts, fraction, seed)
    train_keys, held_out_keys = {prompt_key(i) for i in train}, {prompt_key(i) for i in held_out}
    assert not train_keys & held_out_keys
    assert Counter(i.source for i in train + held_out) == Counter(i.source for i in prompts)
    assert len(held_out_keys) == min(max(round(fraction * different), 1), different - 1)
    shuffled = list(prompts)
    random.shuffle(shuffled)
    assert {prompt_key(i) for i in split_by_prompt(shuffled, fraction, seed)[1]} == held_out_keys


def test_the_seed_chooses_and_zero_holds_out_nothing():
    items = [Labelled(f"text {n}", "x", "") for n in range(40)]
    choices = {tuple(i.text for i in split_by_prompt(items, 0.1, seed)[1]) for seed in range(5)}
    assert len(choices) > 1
    assert split_by_prompt(items, 0.0, 0) == (items, [])


def test_conversations_with_the_same_question_stay_together():
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello"))
    one, other = Conversation(turns, ""), Conversation((turns[0], Turn("assistant", "What")), "")
    assert prompt_key(one) == prompt_key(other) == prompt_key(Prompt(turns[:1], ""))
    assert prompt_key(one) != prompt_key(Conversation((Turn("user", "Ho"), turns[1]), ""))
