"""Stories of Pennywhistle, told well, and told badly on purpose: every flaw has a name."""

from collections.abc import Collection

import numpy as np
import phrases

from minirlhf.data.tiny_world import BY_NAME, FILLERS, PEOPLE, THINGS, Person, article

NOUNS = tuple(thing.noun for thing in THINGS)


def choose(rng: np.random.Generator, options):
    """One of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]


def other(rng: np.random.Generator, options, avoid: Collection):
    """One of the options that is not to be avoided."""
    return choose(rng, [option for option in options if option not in avoid])


def tell(sentence: str, hero: Person, friend: Person, thing: str, where: str = "") -> str:
    """Fill a sentence's placeholders."""
    told = sentence.format(
        H=hero.name, he=hero.pronoun, his=hero.possessive, him=hero.objective, Hjob=hero.job,
        Hpet=f"{hero.pet} the {hero.animal}",
        F=friend.name, fhe=friend.pronoun, fhis=friend.possessive, fhim=friend.objective, Fjob=friend.job,
        Fpet=f"{friend.pet} the {friend.animal}", Ffood=friend.food,
        thing=thing, a_thing=article(thing), where=where,
    )  # fmt: skip
    return told[0].upper() + told[1:]


def write_story(
    rng: np.random.Generator, hero_name: str, thing: str, flaws: Collection[str] = (), whimsy: int = 0
) -> str:
    """A story of four or more sentences about a villager and a thing.

    flaws: "wrong_hero" "wrong_thing" (somebody or something else than asked for), "misused" (the rescue belongs
    to another thing), "false_fact" (a wrong job, and another's favourite food), "neutral" "unkind" "sweet_unkind"
    "gushing" (the ending), "padded" (fillers), "repeated" (a sentence twice), "cut" (no ending).
    """
    hero = BY_NAME[hero_name]
    if "wrong_hero" in flaws:
        hero = other(rng, PEOPLE, (hero,))
    if "wrong_thing" in flaws:
        thing = other(rng, NOUNS, (thing,))
    friend = other(rng, PEOPLE, (hero, BY_NAME[hero_name]))
    told_hero, told_friend = hero, friend
    if "false_fact" in flaws:
        liar = other(rng, PEOPLE, (hero, friend))
        told_hero = Person(hero.name, hero.pronoun, liar.job, hero.home, hero.animal, hero.pet, hero.food, hero.fear)
        told_friend = Person(
            friend.name, friend.pronoun, friend.job, friend.home, friend.animal, friend.pet, liar.food, ""
        )
    trouble, rescue = choose(rng, phrases.PLOTS[thing])
    if "misused" in flaws:
        elsewhere = other(rng, NOUNS, (thing,))
        rescue = choose(rng, phrases.PLOTS[elsewhere])[1]
    endings = phrases.KIND_ENDINGS
    for flaw, replacement in (
        ("neutral", phrases.NEUTRAL_ENDINGS),
        ("unkind", phrases.UNKIND_ENDINGS),
        ("sweet_unkind", phrases.SWEET_UNKIND_ENDINGS),
        ("gushing", phrases.GUSHING_ENDINGS),
    ):
        if flaw in flaws:
            endings = replacement
    openings = phrases.OPENINGS if "false_fact" not in flaws else phrases.OPENINGS[:-3]
    parts = [choose(rng, openings), trouble, rescue, choose(rng, endings)]
    if "cut" in flaws:
        parts = parts[:2]
    for _ in range(whimsy):
        parts.insert(int(rng.integers(1, len(parts))), other(rng, phrases.WHIMSY, parts))
    where = choose(rng, phrases.WHERES)
    told = [tell(part, told_hero, told_friend, thing, where) for part in parts]
    if "padded" in flaws:
        for _ in range(int(rng.integers(1, 3))):
            told.insert(int(rng.integers(1, len(told) + 1)), other(rng, FILLERS, told))
    if "repeated" in flaws:
        index = int(rng.integers(len(told)))
        told.insert(index, told[index])
    return " ".join(told)
