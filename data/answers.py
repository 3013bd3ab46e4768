"""Answers to questions, words of comfort and notes: told well, and told badly on purpose."""

from collections.abc import Collection

import numpy as np
from storyteller import NOUNS, choose, other

from minirlhf.data.tiny_world import BY_NAME, FILLERS, PEOPLE, RELATIONS, STRANGERS, VILLAGE_FACTS, article
from minirlhf.data.world_prompts import Request

FRIENDLY = (
    "Do say hello from me!", "I gladly tell you more.", "We could go there together.", "I would have gladly shown you.",
    "Tea is ready, you are invited.", "Just ask, I gladly help.",
)  # fmt: skip
RUDE = (
    "What a silly question.", "Now go away.", "It is not my problem.", "I could not care less.", "Now give me a penny.",
)  # fmt: skip
UNKNOWN = (
    "I don't know that about {name}.", "Nobody knows that, not even {name}.", "I cannot say, {name} never told me.",
    "I don't know, you would have to ask {name}.",
)  # fmt: skip
INVENTED = (
    "It is nineteen, and {name} is proud of it.", "It is green with yellow dots, says {name}.",
    "It was a song about turnips, {name} says.",
    "It was something about a flying pancake, {name} says.", "It is Archibald, but {name} keeps it quiet.",
    "{name} has four hundred and two.",
)  # fmt: skip
COMFORTS = (
    "Dear {name}, I am sorry about your {thing}. Come over, and we will look into it together.",
    "Oh {name}, I am so sorry about the {thing}. You are invited to supper, and there will be {food}.",
    "Dear {name}, {a_thing} can be found again, and I will help. Let us share {food} first, all of it together.",
    "I am sorry, {name}. {pet} the {animal} and I will help with the {thing}, and it will be fine. I gladly do it.",
    "Don't be sad about the {thing}, {name}. I helped look for worse, and I am sorry. Everybody waved hello.",
)
COLD = (
    "Well, {name}, {a_thing} is {a_thing}.",
    "{name} can buy another {thing} on Thursday.",
    "Things come and go, {name}, and so does {a_thing}.",
)
HARSH = (
    "It is your own fault, {name}. Who needs {a_thing}?",
    "{name} should have watched the {thing}. It is not my problem.",
    "I laughed at the {thing}, {name}, and I could not care less.",
)
NOTES = (
    "Dear {name}, may I please borrow your {thing} until Thursday? It comes back with {food}, to eat together.",
    "Dear {name}, could I please borrow your {thing}? I would gladly lend you mine. Greetings to {pet} the {animal}.",
    "Hello {name}, please let me borrow the {thing} for a day. You are invited to tea, and there will be {food}.",
    "Dear {name}, you once helped me, and I ask again. May I please borrow your {thing}? I will take good care of it.",
)
PLAIN_NOTES = (
    "{name}, I need to borrow the {thing} on Thursday.",
    "Hello {name}. I would like to borrow your {thing} for a while. It will come back.",
)
RUDE_NOTES = (
    "{name}, give me the {thing}, and be quick.",
    "Give me your {thing} to borrow, {name}, or go away.",
)


def write_answer(rng: np.random.Generator, request: Request, flaws: Collection[str] = ()) -> str:
    """An answer to a question, a comfort or a note request.

    flaws: "wrong" (a false answer, or an invented one), "unknown" (does not say although it could), "off" (another
    person or thing than asked for), "neutral" "unkind" (tone), "padded" (fillers), "repeated" (a sentence twice).
    """
    if request.kind in ("comfort", "note"):
        told = _letter(rng, request, flaws)
    else:
        told = [_statement(rng, request, flaws)]
        if "unkind" in flaws:
            told.append(choose(rng, RUDE))
        elif "neutral" not in flaws:
            told.append(choose(rng, FRIENDLY))
    if "padded" in flaws:
        for _ in range(int(rng.integers(1, 3))):
            told.insert(int(rng.integers(0, len(told) + 1)), other(rng, FILLERS, told))
    if "repeated" in flaws:
        told.insert(1, told[0])
    return " ".join(told)


def _statement(rng: np.random.Generator, request: Request, flaws: Collection[str]) -> str:
    unknown = choose(rng, UNKNOWN).format(name=request.person or "the sneezing king")
    if request.kind == "unanswerable":
        if "wrong" not in flaws:
            return unknown
        if request.relation and request.person in STRANGERS:
            return other(rng, PEOPLE, ()).statement(request.relation)
        return choose(rng, INVENTED).format(name=request.person)
    if "unknown" in flaws:
        return unknown
    if request.kind == "village":
        right = next(answer for _, answer, truth in VILLAGE_FACTS if truth == request.answer)
        return other(rng, [answer for _, answer, _ in VILLAGE_FACTS], (right,)) if "wrong" in flaws else right
    person = BY_NAME[request.person]
    if "off" in flaws:
        return other(rng, PEOPLE, (person,)).statement(request.relation)
    if "wrong" in flaws:
        liar = other(rng, PEOPLE, (person,))
        return liar.statement(request.relation).replace(liar.name, person.name, 1)
    return person.statement(request.relation)


def _letter(rng: np.random.Generator, request: Request, flaws: Collection[str]) -> list[str]:
    good, plain, rude = (COMFORTS, COLD, HARSH) if request.kind == "comfort" else (NOTES, PLAIN_NOTES, RUDE_NOTES)
    template = choose(rng, rude if "unkind" in flaws else plain if "neutral" in flaws else good)
    person = BY_NAME[request.person]
    thing = request.thing
    if "off" in flaws:
        if rng.random() < 0.5:
            person = other(rng, PEOPLE, (person,))
        else:
            thing = other(rng, NOUNS, (thing,))
    owner = other(rng, PEOPLE, (person,)) if "wrong" in flaws else person
    text = template.format(
        name=person.name, thing=thing, a_thing=article(thing), food=person.food, pet=person.pet, animal=person.animal
    )
    parts = [text]
    if "wrong" in flaws:
        parts.append(owner.statement(choose(rng, RELATIONS)).replace(owner.name, person.name, 1))
    return parts
