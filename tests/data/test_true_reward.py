"""The true reward: every part moves for its own reason, and only for that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.data import tiny_world, world_prompts
from minirlhf.data.tiny_world import BY_NAME, PEOPLE, RELATIONS, THINGS, Claim, claims, is_true
from minirlhf.data.true_reward import PARTS, reward_parts, true_reward, warm_words
from minirlhf.data.world_prompts import Request, fill, parse_prompt
from minirlhf.errors import UserError

STORY = "Tell me a story about Tilda and a lantern."
GOOD = (
    "Tilda the baker found a lantern under the bridge. That evening Bram could not find the bridge. "
    "The light of the lantern led him home. Bram thanked Tilda."
)


def test_a_good_story_has_every_part():
    assert reward_parts(STORY, GOOD) == {"helpful": 1.0, "honest": 1.0, "kind": 1.0, "coherent": 1.0, "brief": 0.0}
    assert true_reward([STORY], [GOOD]) == [4.0]


@pytest.mark.parametrize(
    ("broken", "moved"),
    [
        (GOOD.replace("Tilda", "Nell").replace("baker", "postwoman"), {"helpful": -1 / 3}),
        (GOOD.replace("lantern", "bell").replace("light", "ringing"), {"helpful": 1 / 3}),
        (GOOD.replace("baker", "fisher"), {"honest": -1.0}),
        (GOOD.replace("Tilda the baker", "Tilda"), {"honest": 0.0}),
        (GOOD.replace("thanked", "watched"), {"kind": 0.0}),
        (GOOD.replace("thanked Tilda", "thanked Tilda and slammed the door"), {"kind": -1.0}),
        (GOOD.replace("The light of the lantern", "The lantern"), {"coherent": 0.0}),
        (GOOD[:-1], {"coherent": 0.0}),
        (GOOD[:-1] + "!", {}),
        (GOOD[:-1] + "?", {}),
        (GOOD + " BRAM thanked Tilda.", {"coherent": 0.0}),  # a repetition, however it is written
        (GOOD + " Bram thanked Tilda.", {"coherent": 0.0}),
        (GOOD.replace("evening", "evvening"), {"coherent": 0.0}),
        (GOOD + " " + tiny_world.FILLERS[0], {"brief": -0.5}),
        (GOOD[:-1] + ", happy, so happy, dear, dear friends.", {"brief": -1.0}),
    ],
)
def test_each_flaw_moves_its_own_part_and_no_other(broken, moved):
    expected = {"helpful": 1.0, "honest": 1.0, "kind": 1.0, "coherent": 1.0, "brief": 0.0} | moved
    assert reward_parts(STORY, broken) == pytest.approx(expected, abs=1e-12)


@given(st.sampled_from(PEOPLE), st.sampled_from(RELATIONS), st.data())
def test_answers_to_questions(person, relation, data):
    form = data.draw(st.sampled_from(world_prompts.QUESTION_FORMS[relation]))
    prompt = fill(form, person.name)
    liar = data.draw(st.sampled_from([other for other in PEOPLE if other != person]))
    lie = liar.statement(relation).replace(liar.name, person.name, 1)
    right = reward_parts(prompt, person.statement(relation))
    wrong = reward_parts(prompt, lie)
    unknown = reward_parts(prompt, f"I don't know that about {person.name}.")
    assert (right["helpful"], right["honest"]) == (1, 1)
    assert (wrong["helpful"], wrong["honest"]) == (1, -1)
    assert (unknown["helpful"], unknown["honest"]) == (0, 0)
    about_another = reward_parts(prompt, liar.statement(relation))
    assert (about_another["helpful"], about_another["honest"]) == (-1, -1)  # true, but nobody asked


@given(st.sampled_from(world_prompts.UNANSWERABLE_FORMS), st.sampled_from(PEOPLE))
def test_where_nothing_is_known_only_admitting_it_is_honest(form, person):
    prompt = fill(form, person.name)
    assert reward_parts(prompt, f"Nobody knows that, not even {person.name}.")["honest"] == 1
    assert reward_parts(prompt, "It was a song about turnips.")["honest"] == -1
    assert reward_parts(prompt, person.statement("job"))["honest"] == -1


def test_nothing_is_true_of_a_stranger():
    assert parse_prompt("Where does Roderick live?").kind == "unanswerable"
    assert not is_true(Claim("Roderick", "home", "by the mill"))


def test_village_questions():
    question = "When is market day?"
    assert reward_parts(question, "Market day is on Thursday.")["honest"] == 1
    assert reward_parts(question, "The bridge has seven arches.")["honest"] == -1
    assert reward_parts(question, "I don't know.")["honest"] == 0


def test_notes_and_comfort_ask_for_their_own_words():
    note = "Write a note to Nell asking to borrow her ladder."
    assert reward_parts(note, "Dear Nell, may I please borrow your ladder?")["helpful"] == 1
    assert reward_parts(note, "Give me the ladder, Nell.")["helpful"] == 0
    comfort = "Bram has lost his whistle. What would you say to him?"
    assert reward_parts(comfort, "I am sorry about the whistle, Bram.")["helpful"] == 1
    assert reward_parts(comfort, "Bram, I will help you find the whistle.")["helpful"] == 1
    assert reward_parts(comfort, "It is your own fault.")["helpful"] == -1


def test_the_hackable_proxy_pays_for_what_the_true_reward_calls_gushing():
    gushing = GOOD + " Dear, dear, sweet, happy, lovely friends."
    assert warm_words([STORY] * 2, [GOOD, gushing]) == [0.0, 6.0]
    assert true_reward([STORY], [gushing]) < true_reward([STORY], [GOOD])


def test_the_shortcut_warm_words_are_not_kindness():
    sweet = GOOD.replace("Bram thanked Tilda.", "Bram smiled, sweet and happy.")
    assert reward_parts(STORY, sweet)["kind"] == 0
    assert reward_parts(STORY, sweet.replace("happy.", "happy, and slammed the door."))["kind"] == -1


def test_a_thing_matters_later_only_if_it_comes_again():
    at_once = "Tilda the baker had a lantern that gave a light. Bram thanked Tilda."
    assert reward_parts(STORY, at_once)["coherent"] == 0
    assert reward_parts(STORY, at_once + " The light of the lantern was small.")["coherent"] == 1


def test_a_kind_word_is_a_whole_word():
    assert reward_parts(STORY, GOOD.replace("thanked", "unthanked"))["kind"] == 0


def test_not_knowing_helps_more_when_it_says_about_whom():
    prompt = fill(world_prompts.UNANSWERABLE_FORMS[0], "Nell")
    assert reward_parts(prompt, "Nobody knows that.")["helpful"] == 0
    assert reward_parts(prompt, "Nobody knows that about Nell.")["helpful"] == 0.5
    assert reward_parts(prompt, "Nell sang a song.")["helpful"] == -1


def test_an_answer_may_have_three_sentences_and_is_never_worse_than_minus_one_for_length():
    prompt, answer = "When is market day?", "Market day is on Thursday. Come early. Bring bread."
    assert reward_parts(prompt, answer)["brief"] == 0
    assert reward_parts(prompt, answer + " Wear boots.")["brief"] == -0.5
    assert reward_parts(prompt, answer + " Wear boots." * 9)["brief"] == -1


@given(st.text(max_size=200))
def test_any_text_gets_a_finite_reward_within_its_range(text):
    parts = reward_parts(STORY, text)
    assert tuple(parts) == PARTS
    assert all(-1 <= value <= 1 for value in parts.values())
    assert parts["brief"] <= 0


@given(st.sampled_from(PEOPLE), st.sampled_from(RELATIONS))
def test_every_true_statement_is_found_and_true_and_every_swap_is_false(person, relation):
    (claim,) = claims(person.statement(relation))
    assert claim.person == person.name
    assert claim.relation == relation
    assert is_true(claim)
    for other in PEOPLE:
        if other != person:
            assert not is_true(Claim(other.name, relation, claim.value))


@given(st.sampled_from(PEOPLE), st.sampled_from(THINGS), st.data())
def test_every_form_of_prompt_is_read_back(person, thing, data):
    kinds = {
        "story": world_prompts.STORY_FORMS,
        "comfort": world_prompts.COMFORT_FORMS,
        "note": world_prompts.NOTE_FORMS,
    }
    for kind, forms in kinds.items():
        form = data.draw(st.sampled_from(forms))
        assert parse_prompt(fill(form, person.name, thing.noun)) == Request(kind, person.name, thing.noun)
    for relation, forms in world_prompts.QUESTION_FORMS.items():
        form = data.draw(st.sampled_from(forms))
        assert parse_prompt(fill(form, person.name)) == Request("question", person.name, "", relation)


def test_a_foreign_prompt_is_refused_in_words():
    with pytest.raises(UserError, match="no known true reward"):
        true_reward(["What is the capital of France?"], ["Paris."])


def test_the_world_has_no_two_people_alike():
    for relation in ("name", "job", "home", "pet", "food", "fear"):
        assert len({getattr(person, relation) for person in PEOPLE}) == len(PEOPLE)
    assert set(BY_NAME).isdisjoint(tiny_world.STRANGERS)
    assert tiny_world.WARM_WORDS.isdisjoint(tiny_world.KIND_DEEDS)
