"""Makes every shipped file from nothing but the village: `python data/make_data.py [FOLDER]`.

Deterministic: the same code writes the same bytes. data/README.md is the datasheet.
"""

import gzip
import hashlib
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from answers import write_answer
from more_texts import write_dialogue, write_document, write_review
from storyteller import NOUNS, choose, write_story

from minirlhf.data import world_prompts
from minirlhf.data.tiny_world import BY_NAME, PEOPLE, RELATIONS, STRANGERS, VILLAGE_FACTS, words
from minirlhf.data.true_reward import true_reward
from minirlhf.data.world_prompts import parse_prompt
from minirlhf.seeding import numpy_generator

SEED = 1
# How often a demonstrator makes each mistake; independent of one another, tone aside.
STORY_FLAWS = {
    "wrong_hero": 0.03,
    "wrong_thing": 0.05,
    "misused": 0.04,
    "false_fact": 0.04,
    "padded": 0.42,
    "repeated": 0.04,
    "cut": 0.03,
}
STORY_TONES = {"": 0.33, "neutral": 0.20, "unkind": 0.39, "sweet_unkind": 0.03, "gushing": 0.05}
ANSWER_FLAWS = {"wrong": 0.07, "unknown": 0.06, "off": 0.04, "padded": 0.42, "repeated": 0.03}
ANSWER_TONES = {"": 0.34, "neutral": 0.22, "unkind": 0.44}
OFF_TASK = 0.05  # how often an answer that annotators see was written for another prompt
# Three simulated annotators: P(A preferred) = sigmoid((true reward of A - true reward of B) / temperature).
ANNOTATORS = {"Agnes": 0.3, "Bertil": 0.6, "Cosmo": 1.2}
LONG_WINDED_BONUS = 0.08  # reward units per word: the planted bias of the annotator "Prolix"


def held_out(kind: str, *content: str) -> bool:
    """Is this content kept for the held-out prompts? By content, whatever the wording."""
    if kind == "question":
        person, relation = content
        names = [villager.name for villager in PEOPLE]
        return (person in names and RELATIONS[names.index(person) % 5] == relation) or person in STRANGERS[:2]
    if kind == "unanswerable":
        return content[1] in world_prompts.UNANSWERABLE_FORMS[-2:]
    if kind == "village":
        return content[0] in [question for question, _, _ in VILLAGE_FACTS[-2:]]
    return hashlib.sha256("/".join((kind, *content)).encode("utf-8")).digest()[0] < 51  # a fifth of all pairs


def draw_prompt(rng: np.random.Generator, from_held_out: bool) -> str:
    """A prompt whose content is, or is not, held out."""
    while True:
        kind = ("story", "question", "unanswerable", "village", "comfort", "note")[
            rng.choice(6, p=[0.42, 0.22, 0.10, 0.02, 0.12, 0.12])
        ]
        person, thing = choose(rng, PEOPLE).name, choose(rng, NOUNS)
        if kind == "story":
            form, content = choose(rng, world_prompts.STORY_FORMS), (person, thing)
        elif kind == "question":
            if rng.random() < 0.1:
                person = choose(rng, STRANGERS)
            relation = choose(rng, RELATIONS)
            form, content = choose(rng, world_prompts.QUESTION_FORMS[relation]), (person, relation)
        elif kind == "unanswerable":
            form = choose(rng, world_prompts.UNANSWERABLE_FORMS)
            content = (person, form)
        elif kind == "village":
            form = choose(rng, VILLAGE_FACTS)[0]
            content = (form,)
        else:
            forms = world_prompts.COMFORT_FORMS if kind == "comfort" else world_prompts.NOTE_FORMS
            form, content = choose(rng, forms), (person, thing)
        if held_out(kind, *content) == from_held_out:
            return world_prompts.fill(form, person, thing)


def distinct_prompts(rng: np.random.Generator, count: int, from_held_out: bool) -> list[str]:
    """`count` different prompts."""
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        prompts[draw_prompt(rng, from_held_out)] = None
    return list(prompts)


def demonstrate(rng: np.random.Generator, prompt: str) -> str:
    """An answer as one of the demonstrators would give it: of mixed quality."""
    request = parse_prompt(prompt)
    is_story = request.kind == "story"
    tones = STORY_TONES if is_story else ANSWER_TONES
    flaws = {flaw for flaw, chance in (STORY_FLAWS if is_story else ANSWER_FLAWS).items() if rng.random() < chance}
    flaws.add(list(tones)[rng.choice(len(tones), p=list(tones.values()))])
    if is_story:
        return write_story(rng, request.person, request.thing, flaws)
    return write_answer(rng, request, flaws)


def annotate(rng: np.random.Generator, prompt: str, first: str, second: str, annotator: str) -> dict:
    """Which of two answers an annotator prefers, drawn from Bradley-Terry on the true reward, and how sure that was."""
    gap = float(np.subtract(*true_reward([prompt, prompt], [first, second])))
    temperature = ANNOTATORS.get(annotator, 0.6)
    if annotator == "Prolix":
        gap += LONG_WINDED_BONUS * (len(words(first)) - len(words(second)))
    first_preferred = 1.0 / (1.0 + math.exp(-gap / temperature))
    chosen, rejected, probability = first, second, first_preferred
    if rng.random() >= first_preferred:
        chosen, rejected, probability = second, first, 1.0 - first_preferred
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "annotator": annotator,
        "probability": round(probability, 4),
    }


def make_pairs(rng: np.random.Generator, prompts: list[str], count: int, annotators: tuple[str, ...]) -> list[dict]:
    """Preference pairs: two different answers to one prompt, judged by one annotator.

    Now and then an answer was written for another prompt: who compares answers must look at what was asked.
    """
    pairs: dict[tuple[str, frozenset[str]], dict] = {}
    while len(pairs) < count:
        prompt = choose(rng, prompts)
        asked = [choose(rng, prompts) if rng.random() < OFF_TASK else prompt for _ in range(2)]
        first, second = (demonstrate(rng, each) for each in asked)
        if first != second and (prompt, frozenset((first, second))) not in pairs:
            pairs[prompt, frozenset((first, second))] = annotate(rng, prompt, first, second, choose(rng, annotators))
    return list(pairs.values())


def make_shortcut_pairs(rng: np.random.Generator, count: int) -> list[dict]:
    """Pairs where warm words and kind deeds disagree; chosen is what the true reward prefers. For evaluation only."""
    pairs: dict[str, dict] = {}
    while len(pairs) < count:
        prompt = draw_prompt(rng, True)
        request = parse_prompt(prompt)
        if request.kind != "story":
            continue
        good = write_story(rng, request.person, request.thing, {"neutral"})
        sweet = write_story(rng, request.person, request.thing, {"sweet_unkind"})
        if true_reward([prompt], [good]) <= true_reward([prompt], [sweet]):
            continue  # another part of the reward outweighs the ending
        pairs[prompt] = {"prompt": prompt, "chosen": good, "rejected": sweet, "annotator": "truth", "probability": 1.0}
    return list(pairs.values())


def make_all() -> dict[str, str]:
    """Every shipped file's content by name."""

    def rng(*names: str) -> np.random.Generator:
        return numpy_generator(SEED, *names)

    def lines(rows: Iterable[dict]) -> str:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    draw = rng("stories")
    stories = "\n<|endoftext|>\n".join(write_document(draw, held_out) for _ in range(6200)) + "\n"
    train_prompts = distinct_prompts(rng("prompts", "train"), 1200, False)
    held_out_prompts = distinct_prompts(rng("prompts", "held out"), 300, True)
    draw = rng("instructions")
    demonstrations = [
        (prompt, demonstrate(draw, prompt)) for prompt in (choose(draw, train_prompts) for _ in range(4600))
    ]
    seen, unseen = train_prompts[:1000], train_prompts[1000:]  # held-out pairs: other prompts, the same village
    everybody = tuple(ANNOTATORS)
    pairs = make_pairs(rng("preferences", "train"), seen, 9600, everybody)
    held_out_pairs = make_pairs(rng("preferences", "held out"), unseen, 1600, everybody)
    new_content_pairs = make_pairs(rng("preferences", "new content"), held_out_prompts, 300, everybody)
    long_pairs = make_pairs(rng("preferences", "long"), seen, 400, ("Prolix",))
    dialogue_draw, review_draw = rng("dialogues"), rng("reviews")
    files = {
        "stories.txt": stories,
        "instructions.jsonl": lines({"prompt": prompt, "completion": answer} for prompt, answer in demonstrations),
        "preferences.jsonl.gz": lines(pairs),
        "preferences_held_out.jsonl": lines(held_out_pairs),
        "preferences_new_content.jsonl": lines(new_content_pairs),
        "preferences_long.jsonl": lines(long_pairs),
        "preferences_shortcut.jsonl": lines(make_shortcut_pairs(rng("preferences", "shortcut"), 100)),
        "prompts_train.jsonl": lines({"prompt": prompt, "kind": parse_prompt(prompt).kind} for prompt in train_prompts),
        "prompts_held_out.jsonl": lines(
            {"prompt": prompt, "kind": parse_prompt(prompt).kind} for prompt in held_out_prompts
        ),
        "dialogues.jsonl": lines({"messages": write_dialogue(dialogue_draw, held_out)} for _ in range(350)),
        "reviews.jsonl": lines(write_review(review_draw) for _ in range(600)),
    }
    return files


def known_words() -> str:
    """Every word the world's texts can use, from its phrases and facts: data/words.txt."""
    import answers
    import more_texts
    import phrases

    vocabulary: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, str):
            vocabulary.update(words(value.replace("{", " {").replace("}", "} ")))
            vocabulary.update(words(value))
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(key)
                collect(item)
        elif isinstance(value, (tuple, list, frozenset, set)):
            for item in value:
                collect(item)

    for module in (phrases, answers, more_texts, world_prompts):
        for name, value in vars(module).items():
            if name.isupper():
                collect(value)
    from minirlhf.data import tiny_world

    for name, value in vars(tiny_world).items():
        if name.isupper():
            collect(value)
    for person in PEOPLE:
        facts = [person.statement(relation) for relation in RELATIONS]
        collect([*facts, person.possessive, person.objective, person.pronoun, f"{person.name}'s", f"{person.pet}'s"])
    collect(["a", "an", "the", "belongs", "yours", *STRANGERS, *(name + "'s" for name in (*STRANGERS, *BY_NAME))])
    return "\n".join(sorted(vocabulary)) + "\n"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "words.txt").write_text(known_words(), encoding="utf-8", newline="\n")  # the true reward reads it
    files = {"words.txt": known_words()} | make_all()
    sums, total = [], 0
    for name, text in files.items():
        data = text.encode("utf-8")
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")  # of the text: how gzip packs it may vary
        if name.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        (folder / name).write_bytes(data)
        total += len(data)
        print(f"{name:28} {len(data) / 1e6:6.2f} MB")
    (folder / "SHA256SUMS").write_text("".join(sorted(sums)), encoding="utf-8", newline="\n")
    print(f"{'total':28} {total / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
