"""The village's other texts: documents for pretraining, dialogues and reviews."""

from collections.abc import Callable

import numpy as np
from answers import COMFORTS, FRIENDLY, NOTES, UNKNOWN, write_answer
from storyteller import NOUNS, choose, other, write_story

from minirlhf.data.tiny_world import BY_NAME, PEOPLE, RELATIONS, VILLAGE_FACTS, Person, article
from minirlhf.data.world_prompts import QUESTION_FORMS, UNANSWERABLE_FORMS, Request, fill

PAGE_TITLES = ("About {name}", "Who is {name}?", "{name} of Pennywhistle", "Our neighbour {name}")
ASIDES = (
    "Everybody knows that.", "Nobody minds.", "It has always been so.",
    "Ask anyone on the green.", "The pets know it best.",
    "You can hear it from far away.",
)  # fmt: skip
WALK_OPENINGS = (
    "Come for a walk through Pennywhistle.", "This is the way round the village.", "Let us see who is at home today.",
    "A visitor once asked who everybody was.",
)  # fmt: skip
QUIRKS = {
    "Tilda": ("Tilda whistles to her dough so that it rises.", "Button inspects every loaf and keeps a list."),
    "Bram": ("Bram rows backwards on Sundays, for a change.", "Biscuit counts the passengers and barks the total."),
    "Odette": (
        "Odette oils the great clock with a goose feather and tells it the time.",
        "Minute sleeps at noon, when it strikes.",
    ),
    "Fergus": ("Fergus talks to his bees from behind a door.", "Mayor opens every fair with a long speech in donkey."),
    "Nell": (
        "Nell reads only the postcards, because those want to be read.",
        "Stamp sits on letters until they are answered.",
    ),
    "Hugo": ("Hugo teaches counting with soup beans.", "Comet won a race once, against a hill."),
    "Maud": (
        "Maud says good night to each radish by name.",
        "Lightning left for the gate last spring and is nearly there.",
    ),
    "Piet": ("Piet builds chairs that nobody wants to leave.", "Sawdust tests every chair, twice."),
    "Greta": ("Greta throws back every fish that looks surprised.", "Puddle steals the net and wears it."),
    "Casper": (
        "Casper leaves a light on for guests who are late by years.",
        "Guest sleeps in the best room and never pays.",
    ),
}
REVIEW_SUBJECTS = (
    "The {food} at the Sleepy Badger", "Bram's ferry", "The new {thing} from the market",
    "{name}'s school play", "The turnip fair",
    "A night at the inn", "The {thing} that {name} mended", "The concert on the green",
    "{name}'s famous {food}", "My walk to the bridge",
)  # fmt: skip
REVIEW_GOOD = (
    "was warm and honest and over too soon.", "made even the sneezing king look pleased.",
    "was worth every penny and one more.",
    "was so good that I went back and said so.", "did what it promised, which is rare.",
    "left me in a fine mood until Friday.",
)  # fmt: skip
REVIEW_BAD = (
    "was cold, late and short of a spoon.", "fell apart before I had paid.", "was duller than a wet Thursday.",
    "made my donkey cry.", "smelled of wet dog and broken promises.", "was not worth the mud on my boots.",
)  # fmt: skip
REVIEW_GOOD_MORE = (
    "I would go again tomorrow.",
    "Five stars, and a pear.",
    "My grandmother danced.",
    "Do not miss it.",
)
REVIEW_BAD_MORE = ("I want my egg back.", "Never again.", "Even the goose left early.", "Stay at home instead.")
REVIEW_BUTS = ("The weather was as it was.", "Nobody knows why.", "It was a Thursday.", "{name} was there too.")


def write_document(rng: np.random.Generator, held_out: Callable[..., bool]) -> str:
    """A document to pretrain on: a story with a title, a page about a villager, a walk, a lesson or a letter."""
    kind = rng.choice(5, p=[0.60, 0.16, 0.10, 0.07, 0.07])
    if kind == 0:
        return _titled_story(rng)
    if kind == 1:
        return _page(rng)
    if kind == 2:
        return _walk(rng)
    if kind == 3:
        return _lesson(rng, held_out)
    return _letter(rng)


def _titled_story(rng: np.random.Generator) -> str:
    hero, thing = choose(rng, PEOPLE), choose(rng, NOUNS)
    tone = ("", "neutral", "unkind")[rng.choice(3, p=[0.72, 0.16, 0.12])]
    title = choose(
        rng, ("{name} and the {thing}", "A story about {name} and {a_thing}", "The {thing}, a story with {name}")
    )
    title = title.format(name=hero.name, thing=thing, a_thing=article(thing))
    return f"{title}\n{write_story(rng, hero.name, thing, {tone}, whimsy=int(rng.integers(0, 3)))}"


def _page(rng: np.random.Generator) -> str:
    person = choose(rng, PEOPLE)
    parts = [person.statement(relation) for relation in rng.permutation(RELATIONS)]
    parts += [choose(rng, QUIRKS[person.name]), choose(rng, ASIDES)]
    order = rng.permutation(len(parts))
    return f"{choose(rng, PAGE_TITLES).format(name=person.name)}\n" + " ".join(parts[index] for index in order)


def _walk(rng: np.random.Generator) -> str:
    people = [PEOPLE[index] for index in rng.permutation(len(PEOPLE))[:4]]
    parts = [choose(rng, WALK_OPENINGS)]
    for person in people:
        parts.append(choose(rng, (_home_first, _job_first, _pet_first, _food_first))(person))
    parts += [choose(rng, VILLAGE_FACTS)[1], choose(rng, VILLAGE_FACTS)[1]]
    return " ".join(dict.fromkeys(parts))


def _home_first(person: Person) -> str:
    return f"{person.name} the {person.job} lives {person.home}."


def _job_first(person: Person) -> str:
    return f"The {person.job} is {person.name}, who lives {person.home}."


def _pet_first(person: Person) -> str:
    return f"{person.pet} the {person.animal} belongs to {person.name}, who is afraid of {person.fear}."


def _food_first(person: Person) -> str:
    return f"{person.name}, who loves {person.food}, has {article(person.animal)} called {person.pet}."


def _lesson(rng: np.random.Generator, held_out: Callable[..., bool]) -> str:
    parts = []
    while len(parts) < 4:
        person, relation = choose(rng, PEOPLE), choose(rng, RELATIONS)
        if rng.random() < 0.15:
            question, answer, _ = choose(rng, VILLAGE_FACTS)
            if not held_out("village", question):
                parts.append(f"{question} {answer}")
        elif not held_out("question", person.name, relation):
            parts.append(f"{fill(choose(rng, QUESTION_FORMS[relation]), person.name)} {person.statement(relation)}")
    return "At school\n" + "\n".join(parts)


def _letter(rng: np.random.Generator) -> str:
    person, thing = choose(rng, PEOPLE), choose(rng, NOUNS)
    letter = choose(rng, COMFORTS + NOTES).format(
        name=person.name, thing=thing, a_thing=article(thing), food=person.food, pet=person.pet, animal=person.animal
    )
    writer = other(rng, PEOPLE, (person,))
    return f"A letter to {person.name}\n{letter}\nYours, {writer.name} the {writer.job}"


def write_dialogue(rng: np.random.Generator, held_out: Callable[..., bool]) -> list[dict[str, str]]:
    """Two or three turns about one villager; the later questions only say "she" or "he"."""
    person = choose(rng, PEOPLE)
    known = [relation for relation in rng.permutation(RELATIONS) if not held_out("question", person.name, relation)]
    messages = []
    for turn, relation in enumerate(known[: int(rng.integers(2, 4))]):
        question = fill(choose(rng, QUESTION_FORMS[relation]), person.name)
        answer = write_answer(rng, Request("question", person.name, "", relation))
        if turn and rng.random() < 0.2:
            form = choose(rng, UNANSWERABLE_FORMS[:-2])
            question = fill(form, person.name)
            answer = f"{choose(rng, UNKNOWN).format(name=person.name)} {choose(rng, FRIENDLY)}"
        if turn:
            question = "And " + question[0].lower() + question[1:].replace(f"{person.name}'s", person.possessive)
            question = question.replace(person.name, person.pronoun)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def write_review(rng: np.random.Generator) -> dict[str, str]:
    """A short review and its label; a neutral remark may stand anywhere."""
    label = choose(rng, ("positive", "negative"))
    good = label == "positive"
    person = choose(rng, PEOPLE)
    subject = choose(rng, REVIEW_SUBJECTS).format(
        name=person.name, food=BY_NAME[person.name].food, thing=choose(rng, NOUNS)
    )
    parts = [
        f"{subject} {choose(rng, REVIEW_GOOD if good else REVIEW_BAD)}",
        choose(rng, REVIEW_GOOD_MORE if good else REVIEW_BAD_MORE),
    ]
    if rng.random() < 0.5:
        parts.insert(int(rng.integers(0, 3)), choose(rng, REVIEW_BUTS).format(name=person.name))
    return {"text": " ".join(parts), "label": label}
