"""Every shape of record is read as what it means; every broken record is refused with file, line and field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.data.formats import read_conversations, read_documents, read_labelled, read_preferences, read_prompts
from minirlhf.data.turns import parse_transcript, transcript
from minirlhf.errors import UserError
from minirlhf.records import Conversation, Labelled, Preference, Turn

U, A, S = (lambda text, role=role: Turn(role, text) for role in ("user", "assistant", "system"))


def write(tmp_path, *records, name="a.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def refused(read, path, **options):
    with pytest.raises(UserError) as caught:
        read(path, **options)
    return caught.value


def share(*pairs):
    return [{"from": speaker, "value": value} for speaker, value in pairs]


def chat(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


HELLO = [U("Hi"), A("Hello")]
LONGER = [S("Be kind"), U("Hi"), A("Hello"), U("Bye"), A("So long")]
CONVERSATIONS = [
    ({"prompt": "Hi", "completion": "Hello"}, HELLO),
    ({"prompt": "Hi", "response": "Hello"}, HELLO),
    ({"prompt": chat(("user", "Hi")), "completion": chat(("assistant", "Hello"))}, HELLO),
    ({"prompt": "Hi", "completion": "Hello", "system": "Be kind"}, [S("Be kind"), *HELLO]),
    ({"instruction": "Hi", "input": "", "output": "Hello"}, HELLO),
    ({"instruction": "Hi", "output": "Hello"}, HELLO),
    ({"instruction": "Spell", "input": "freind", "output": "friend"}, [U("Spell\n\nfreind"), A("friend")]),
    ({"question": "1+1?", "answer": "<<1+1=2>>2\n#### 2"}, [U("1+1?"), A("<<1+1=2>>2\n#### 2")]),
    ({"messages": chat(("user", "Hi"), ("assistant", "Hello"))}, HELLO),
    (
        {"messages": chat(*[(t.role, t.content) for t in LONGER])},
        LONGER,
    ),
    (
        {
            "conversations": share(
                ("system", "Be kind"), ("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "So long")
            )
        },
        LONGER,
    ),
    ({"conversations": share(("human", "Hi"), ("gpt", "Hello")), "system": "Be kind"}, [S("Be kind"), *HELLO]),
    ({"messages": chat(("user", "Hi"), ("assistant", "Hello"), ("user", "no answer"))}, HELLO),
    ({"messages": chat(("user", "Hi"), ("assistant", "Hello")), "label": True}, HELLO),
    ({"prompt": "Hi", "completion": "Hello", "label": "true"}, HELLO),
    ({"prompt": "Hi", "chosen": "Hello", "rejected": "What"}, HELLO),
]


@pytest.mark.parametrize(("record", "turns"), CONVERSATIONS)
def test_conversations_of_every_shape(tmp_path, record, turns):
    path = write(tmp_path, record)
    assert read_conversations(path)[0] == [Conversation(tuple(turns), f"{path}:1")]
    prompts, _ = read_prompts(path)
    open_end = "messages" in record and record["messages"][-1]["role"] == "user"
    assert prompts[0].turns == ((*turns, U("no answer")) if open_end else tuple(turns[:-1]))
    assert prompts[0].fields == record


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: "
PREFERENCES = [
    ({"prompt": "Hi", "chosen": "Hello", "rejected": "What"}, [U("Hi")], "Hello", "What"),
    (
        {"question": "Hi", "chosen": "Hello", "rejected": "What", "system": "Be kind"},
        [S("Be kind"), U("Hi")],
        "Hello",
        "What",
    ),
    (
        {
            "prompt": chat(("user", "Hi")),
            "chosen": chat(("assistant", "Hello")),
            "rejected": chat(("assistant", "What")),
        },
        [U("Hi")],
        "Hello",
        "What",
    ),
    (
        {
            "prompt": "Hi",
            "chosen": chat(("user", "Hi"), ("assistant", "Hello")),
            "rejected": chat(("user", "Hi"), ("assistant", "What")),
        },
        [U("Hi")],
        "Hello",
        "What",
    ),
    (
        {
            "chosen": chat(("user", "Hi"), ("assistant", "Hello")),
            "rejected": chat(("user", "Hi"), ("assistant", "What")),
        },
        [U("Hi")],
        "Hello",
        "What",
    ),
    (
        {"chosen": HH + "So long", "rejected": HH + "What\n\never "},
        [U("Hi"), A("Hello"), U("Bye")],
        "So long",
        "What\n\never ",
    ),
    (
        {"prompt": HH.rstrip(" "), "chosen": "So long", "rejected": "What"},
        [U("Hi"), A("Hello"), U("Bye")],
        "So long",
        "What",
    ),
    (
        {"instruction": "Hi", "input": "there", "output": "-", "chosen": "Hello", "rejected": "What"},
        [U("Hi\n\nthere")],
        "Hello",
        "What",
    ),
    (
        {
            "conversations": share(("human", "Hi")),
            "chosen": share(("gpt", "Hello"))[0],
            "rejected": share(("gpt", "What"))[0],
        },
        [U("Hi")],
        "Hello",
        "What",
    ),
    (
        {
            "prompt": "Hi",
            "messages": chat(("user", "Hi"), ("assistant", "Hello")),
            "chosen": chat(("user", "Hi"), ("assistant", "Hello")),
            "rejected": chat(("user", "Hi"), ("assistant", "What")),
        },
        [U("Hi")],
        "Hello",
        "What",
    ),
    ({"input": "Hi", "output_1": "Hello", "output_2": "What", "label": 1}, [U("Hi")], "Hello", "What"),
    ({"input": "Hi", "output_1": "What", "output_2": "Hello", "label": "2"}, [U("Hi")], "Hello", "What"),
]


@pytest.mark.parametrize(("record", "prompt", "chosen", "rejected"), PREFERENCES)
def test_preferences_of_every_shape(tmp_path, record, prompt, chosen, rejected):
    path = write(tmp_path, record)
    assert read_preferences(path)[0] == [Preference(tuple(prompt), chosen, rejected, f"{path}:1")]
    conversations, report = read_conversations(path)
    assert conversations == [Conversation((*prompt, A(chosen)), f"{path}:1")]
    assert "chosen answers" in report.notes[0]


TURN_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda t: "\n\n" not in t)


@given(st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), TURN_TEXT), min_size=1, max_size=5))
def test_a_transcript_parsed_is_the_turns_it_was_written_from(turns):
    turns = [
        Turn(turn.role, turn.content.strip("\n")) for turn in turns
    ]  # "a\n" + "\n\nHuman:" could be cut in two ways
    assert parse_transcript(transcript(turns)) == tuple(turns)


def test_an_instruction_with_instances_gives_one_conversation_each(tmp_path):
    path = write(
        tmp_path, {"instruction": "Add", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "?"}]}
    )
    conversations, _ = read_conversations(path)
    assert [c.turns for c in conversations] == [(U("Add\n\n1 1"), A("2")), (U("Add"), A("?"))]


def test_liked_answers_are_learnt_disliked_ones_counted(tmp_path):
    records = [
        {"prompt": "Hi", "completion": text, "label": liked} for text, liked in [("a", True), ("b", False), ("c", 0)]
    ]
    path = write(tmp_path, *records)
    conversations, report = read_conversations(path)
    assert len(conversations) == 1 and report.dropped == {"answer labelled false": 2}
    assert report.first["answer labelled false"] == f"{path}:2"
    assert "not pairs" in str(refused(read_preferences, path))
    labelled, _ = read_labelled(path)
    assert labelled[0] == Labelled("\n\nHuman: Hi\n\nAssistant: a", "True", f"{path}:1")


def test_empty_turns_are_dropped_and_counted(tmp_path):
    records = [{"prompt": p, "completion": c} for p, c in [("Hi", "Hello"), ("", "Hello"), ("Hi", " "), (" ", "")]]
    path = write(tmp_path, *records, {"messages": chat(("user", "Hi"))}, {"messages": []})
    conversations, report = read_conversations(path)
    assert len(conversations) == 1
    assert report.dropped == {"empty turn": 1, "empty answer": 2, "no answer to learn": 2}
    assert report.kept == 1 and report.total_dropped == 5 and "5 dropped" in str(report)


def test_texts_paragraphs_and_lists_of_strings_are_documents(tmp_path):
    path = write(tmp_path, {"text": "one ", "label": 1}, {"title": "x", "paragraphs": ["two", "lines"]}, "three")
    assert [d.text for d in read_documents(path)[0]] == ["one ", "two\nlines", "three"]
    assert "no plain texts but question and answer" in str(
        refused(read_documents, write(tmp_path, {"question": "1", "answer": "22"}))
    )
    assert [d.text for d in read_documents(path.with_name("a.jsonl"), fields={"text": "answer"})[0]] == ["22"]


def test_fields_are_mapped_by_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,review,star,answer\n1,很好,5.0,谢谢\n", encoding="utf-8")
    assert read_labelled(path, fields={"text": "review", "label": "star"})[0] == [Labelled("很好", "5.0", f"{path}:2")]
    conversations, _ = read_conversations(path, fields={"prompt": "review", "completion": "answer"})
    assert conversations[0].turns == (U("很好"), A("谢谢"))
    assert "--field label=COLUMN" in str(refused(read_labelled, path, fields={"text": "review"}))
    assert "no field 'stars'" in str(refused(read_labelled, path, fields={"text": "review", "label": "stars"}))
    assert "minirlhf has no field 'txt'" in str(refused(read_labelled, path, fields={"txt": "review"}))


def test_a_mapped_field_wins_over_a_richer_shape(tmp_path):
    path = write(tmp_path, {"messages": chat(("user", "x"), ("assistant", "y")), "q": "Hi", "a": "Hello"})
    assert read_conversations(path, fields={"prompt": "q", "completion": "a"})[0][0].turns == tuple(HELLO)


REFUSED = [
    (read_conversations, [{"prompt": "Hi", "completion": "a"}, {"prompt": "Hi"}], 2, "no answer to learn"),
    (read_conversations, [{"prompt": "Hi", "completion": 3}], 1, 'field "completion"'),
    (read_conversations, [{"prompt": "Hi", "completion": None}], 1, "null"),
    (read_conversations, [{"prompt": "Hi", "completion": ["Hello", "Hey"]}], 1, "several answers"),
    (read_conversations, [{"messages": [{"role": "user", "content": ["Hi"]}]}], 1, 'field "messages[0].content"'),
    (read_conversations, [{"messages": [{"role": "tool", "content": "Hi"}]}], 1, "an unknown role"),
    (read_conversations, [{"messages": [{"role": "user"}]}], 1, "a turn is not complete"),
    (read_conversations, [{"messages": {"a": 1}}], 1, "neither a text nor a list"),
    (read_conversations, [{"instruction": "a", "instances": [{"input": "a"}]}], 1, 'field "instances"'),
    (read_conversations, [{"review": "a", "star": 1}], 1, "--field prompt=review"),
    (read_conversations, [{"question": "a", "answer": "b"}, {"x": "a"}], 2, "a field is missing: 'question'"),
    (read_conversations, [["a", "b"]], 1, "a list where a line"),
    (read_conversations, ["a"], 1, "holds no records"),
    (read_conversations, [{str(n): n for n in range(2000)}], 1, "looks like a vocabulary"),
    (read_conversations, [{"prompt": "Hi", "completion": "\ud83d"}], 1, "half a character"),
    (read_preferences, [{"prompt": "Hi", "completion": "a"}], 1, "no rejected answer"),
    (read_preferences, [{"a": "Hi", "b": "a"}], 1, "--field rejected=COLUMN"),
    (read_preferences, [{"chosen": "a", "rejected": "b"}], 1, "the pair has no prompt"),
    (read_preferences, [{"prompt": "a", "chosen": "a", "rejected": 1}], 1, 'field "rejected"'),
    (read_preferences, [{"input": "a", "output_1": "a", "output_2": "b", "label": 0}], 1, "which output is better"),
    (read_labelled, [{"text": "a", "category": "b"}], 1, "--field label=category"),
    (read_labelled, [{"text": "a", "label": None}], 1, 'field "label"'),
    (read_labelled, [{"text": 1, "label": "b"}], 1, 'field "text"'),
    (read_documents, [{"paragraphs": ["a", 1]}], 1, 'field "paragraphs[1]"'),
    (read_prompts, [{"text": "Hi"}], 1, "no shape that fits"),
]


@pytest.mark.parametrize(("read", "records", "line", "words"), REFUSED)
def test_a_broken_record_is_refused_with_its_line_and_field(tmp_path, read, records, line, words):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")  # ASCII, \ud83d escaped
    if words == "no answer to learn":  # not broken, only useless
        assert read(path)[1].dropped == {words: 1}
        return
    error = refused(read, path)
    assert error.where.startswith(f"{path}:{line}")
    assert words in str(error) and error.found and (error.fix or error.expected)


def test_transcripts_that_part_before_the_last_answer_are_dropped_and_counted(tmp_path):
    other = "\n\nHuman: Hi\n\nAssistant: No\n\nHuman: Bye\n\nAssistant: What"
    records = [
        {"chosen": HH + "So long", "rejected": other},
        {"chosen": HH + "So long", "rejected": HH + "What\n\nHuman: Why"},
        {"chosen": HH + "So long", "rejected": HH + "What"},
    ]
    path = write(tmp_path, *records)
    pairs, report = read_preferences(path)
    assert [pair.source for pair in pairs] == [f"{path}:3"]
    assert report.dropped == {
        "the conversations differ before the last answer": 1,
        "a conversation that does not end with an answer": 1,
    }
