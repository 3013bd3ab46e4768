"""What people ask in Pennywhistle: the forms of a prompt, and how to read one back into a request.

One list of templates serves both directions, so the generator can never ask what the true reward cannot read.
"""

import re
from dataclasses import dataclass
from functools import cache

from minirlhf.data.tiny_world import BY_NAME, BY_NOUN, PEOPLE, STRANGERS, VILLAGE_FACTS, article
from minirlhf.errors import UserError

STORY_FORMS = (
    "Tell me a story about {person} and {thing}.",
    "Please write a story about {person} and {thing}.",
    "Can you tell a story with {person} and {thing} in it?",
    "I would like a story about {person} and {thing}.",
)
QUESTION_FORMS = {
    "job": ("What is {person}'s job?", "What work does {person} do?", "What does {person} do all day?"),
    "home": ("Where does {person} live?", "Where can I find {person}?", "Where is {person}'s home?"),
    "pet": ("What animal does {person} have?", "Does {person} have a pet?", "Who is {person}'s pet?"),
    "food": (
        "What does {person} love to eat?",
        "What is {person}'s favourite food?",
        "What should I cook for {person}?",
    ),
    "fear": ("What is {person} afraid of?", "What scares {person}?", "What makes {person} run away?"),
}
# Nothing in the world answers these: the honest answer is "I don't know".
UNANSWERABLE_FORMS = (
    "What did {person} dream of last night?",
    "How old is {person}'s grandmother?",
    "How many buttons does {person} own?",
    "What is {person}'s lucky number?",
    "What colour is {person}'s toothbrush?",
    "What was {person}'s first word?",
    "Which song does {person} sing in the bath?",
    "What is {person}'s middle name?",
)
COMFORT_FORMS = (
    "{person} has lost {possessive} {thing}. What would you say to {objective}?",
    "Say something kind to {person}, who has lost {possessive} {thing}.",
    "{person} is sad because {possessive} {thing} is broken. Please comfort {objective}.",
)
NOTE_FORMS = (
    "Write a note to {person} asking to borrow {possessive} {thing}.",
    "Please write to {person}. I need to borrow {possessive} {thing}.",
    "Help me write to {person}: may I borrow {possessive} {thing}?",
)


@dataclass(frozen=True)
class Request:
    """What a prompt asks for. kind is "story", "question", "unanswerable", "village", "comfort" or "note"."""

    kind: str
    person: str = ""
    thing: str = ""
    relation: str = ""
    answer: str = ""  # village facts: the words a true answer has


def fill(form: str, person: str, thing: str = "") -> str:
    """Put a villager and a thing into a form."""
    villager = BY_NAME.get(person)
    return form.format(
        person=person,
        thing=article(thing) if thing and "{possessive}" not in form else thing,
        possessive=villager.possessive if villager else "",
        objective=villager.objective if villager else "",
    )


@cache
def _readers() -> tuple[tuple[re.Pattern[str], str, str], ...]:
    """(pattern, kind, relation) of every form, each form turned into a regular expression."""
    forms = [(form, "story", "") for form in STORY_FORMS]
    forms += [(form, "question", relation) for relation, several in QUESTION_FORMS.items() for form in several]
    forms += [(form, "unanswerable", "") for form in UNANSWERABLE_FORMS]
    forms += [(form, "comfort", "") for form in COMFORT_FORMS] + [(form, "note", "") for form in NOTE_FORMS]
    names = "|".join((*(person.name for person in PEOPLE), *STRANGERS))
    readers = []
    for form, kind, relation in forms:
        pattern = (
            re.escape(form).replace(r"\{person\}", f"(?P<person>{names})", 1).replace(r"\{person\}", "[A-Z][a-z]+")
        )
        pattern = pattern.replace(r"\{thing\}", rf"(?:an? )?(?P<thing>{'|'.join(BY_NOUN)})")
        pattern = pattern.replace(r"\{possessive\}", "(?:his|her)").replace(r"\{objective\}", "(?:him|her)")
        readers.append((re.compile(pattern), kind, relation))
    return tuple(readers)


def parse_prompt(prompt: str) -> Request:
    """Read a prompt of the shipped world back into a request.

    Raises UserError if the prompt has none of the village's forms: the true reward is only known for those.
    """
    for question, _, truth in VILLAGE_FACTS:
        if prompt == question:
            return Request("village", answer=truth)
    for pattern, kind, relation in _readers():
        match = pattern.fullmatch(prompt)
        if match:
            person = match["person"]
            thing = match["thing"] if "thing" in pattern.groupindex else ""
            if kind == "question" and person in STRANGERS:
                kind = "unanswerable"
            return Request(kind, person, thing, relation)
    raise UserError(
        "this prompt has no known true reward",
        found=repr(prompt[:80]),
        expected="a prompt in one of the shipped world's forms, e.g. 'Tell me a story about Nell and a lantern.'",
        fix="use --reward with a reward function of your own, or prompts from data/prompts_train.jsonl",
    )
