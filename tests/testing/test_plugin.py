"""The pytest plugin: how many cases are drawn, by option, by profile and by environment, and nothing when unasked."""

from pathlib import Path

import pytest
from hypothesis import settings

import minirlhf
from minirlhf.testing import load_profile, proved
from minirlhf.testing.plugin import VARIABLE
from minirlhf.testing.profiles import EXAMPLES

COUNTS = """
from hypothesis import given, settings, strategies as st
from minirlhf.testing import proved

def drawn(decorate):
    seen = []
    decorate(lambda x: seen.append(x))()
    return len(seen)

def test_counts():
    numbers = st.floats(0, 1)
    given_, own = given(numbers), settings(max_examples=7, deadline=None)
    assert [drawn(given_), drawn(lambda t: settings(deadline=None)(given_(t))), drawn(proved(numbers, share=0.5))] == %s
    assert drawn(lambda t: own(given_(t))) == 7

def test_profile():
    found = settings.default
    assert [settings.get_current_profile_name(), found.deadline is None, found.derandomize] == %s
"""
OURS = ("-p", "no:cacheprovider", "-p", "minirlhf.testing.plugin")


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run pytest in a process of its own, on a suite that states what it finds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(minirlhf.__file__).parents[1]))
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD"):  # where hypothesis changes its defaults
        monkeypatch.delenv(name, raising=False)

    def run(counts, profile, *options):
        pytester.makepyfile(COUNTS % (counts, profile))
        return pytester.runpytest_subprocess(*OURS, *options)

    return run


@pytest.mark.parametrize(
    ("options", "counts", "profile"),
    [
        ((), [100, 100, 50], ["default", False, False]),
        (("--gradcheck-examples", "12"), [12, 12, 6], ["minirlhf-laptop", True, True]),
        (("--gradcheck-profile", "ci"), [200, 200, 100], ["minirlhf-ci", True, True]),
        (
            ("--gradcheck-profile=overnight", "--gradcheck-examples=9", "-n2"),
            [9, 9, 4],
            ["minirlhf-overnight", True, False],
        ),
    ],
    ids=["unasked", "examples", "profile", "both_with_workers"],
)
def test_options_reach_the_tests(suite, options, counts, profile):
    suite(counts, profile, *options).assert_outcomes(passed=2)


def test_the_environment_names_a_profile_and_the_option_is_stronger(suite, monkeypatch):
    monkeypatch.setenv(VARIABLE, "ci")
    suite([200, 200, 100], ["minirlhf-ci", True, True]).assert_outcomes(passed=2)
    suite([30, 30, 15], ["minirlhf-laptop", True, True], "--gradcheck-profile", "laptop").assert_outcomes(passed=2)
    monkeypatch.setenv(VARIABLE, "weekend")
    refused = suite([], [])
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines("*no profile 'weekend', only laptop, ci, overnight*")


def test_a_number_of_examples_is_above_zero(suite):
    refused = suite([], [], "--gradcheck-examples", "0")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines("*whole number above 0, got '0'*")


def test_asked_for_by_a_conftest_as_well_it_is_one_plugin(suite, pytester):
    pytester.makeconftest("pytest_plugins = ['minirlhf.testing.plugin']")
    suite([12, 12, 6], ["minirlhf-laptop", True, True], "--gradcheck-examples=12").assert_outcomes(passed=2)


def test_the_example_of_the_package_and_what_it_prints(suite, pytester):
    """The five lines of the documentation, run on a loss whose author has detached too much."""
    pytester.makepyfile(
        test_example="""
from torch.nn.functional import logsigmoid
from hypothesis import given
from minirlhf.testing import check_gradient, preference_pairs

def my_loss(chosen_scores, rejected_scores):
    return -logsigmoid(chosen_scores - rejected_scores.detach()).mean()

@given(preference_pairs())
def test_my_loss(pairs):
    check_gradient(my_loss, pairs.chosen_scores, pairs.rejected_scores)
"""
    )
    result = pytester.runpytest_subprocess(*OURS, "test_example.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: my_loss: wrong gradient for rejected_scores*",
            "*got (autograd)        0",
            "*by finite difference  0.5",
            "*no gradient flows to rejected_scores: is it detached?*",
            "*wrong at 1 of 2 coordinates",
            "*chosen_scores = np.array(*0.0*)",
            "*rejected_scores = np.array(*0.0*)",
        ]
    )


def test_profiles_are_checked_and_hypothesis_keeps_its_own():
    before = settings.get_current_profile_name()
    own = {name: settings.get_profile(name) for name in ("default", "ci")}
    try:
        assert [load_profile(name) for name in EXAMPLES] == [30, 200, 5000]
        assert load_profile("ci", 3) == settings.default.max_examples == 3
    finally:
        settings.load_profile(before)
    assert own == {name: settings.get_profile(name) for name in own}
    with pytest.raises(ValueError, match="no profile 'night'"):
        load_profile("night")
    with pytest.raises(ValueError, match="at least one example"):
        load_profile("ci", 0)
    with pytest.raises(ValueError, match="share must be positive"):
        proved(share=0.0)
