"""The chapters' one drawing style: what it sets, and that labels and numbers land where they belong."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from chapters.drawing import INK, MUTED, OURS, STYLE, THEIRS, new_figure, show_matrix


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_figure_is_as_large_as_asked_and_in_the_style():
    figure, axes = new_figure(6, 3)
    assert figure.get_size_inches().tolist() == [6, 3]
    (line,) = axes.plot([1, 2])
    (second,) = axes.plot([2, 1])
    assert (line.get_color(), second.get_color()) == (OURS, THEIRS)
    assert axes.xaxis.label.get_size() == STYLE["axes.labelsize"] >= 14
    assert new_figure(ncols=3)[1].shape == (3,)


def brightness(colour):
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_the_colours_are_told_apart_in_grey_where_they_meet():
    grey = sorted(map(brightness, (INK, OURS, MUTED, "white")))
    assert min(np.diff(grey)) > 0.2
    much = [brightness(matplotlib.colormaps["much"](x)) for x in np.linspace(0, 1, 20)]
    assert (np.diff(much) < 0).all(), "more must be darker"
    signed = matplotlib.colormaps["signed"]
    assert brightness(signed(0.5)) > 0.99 > max(brightness(signed(0.0)), brightness(signed(1.0)))


def test_a_matrix_is_painted_row_by_row_with_its_labels_and_numbers():
    _, axes = new_figure()
    image = show_matrix(axes, [[0.0, 0.25, 1.0], [0.5, 0.0, 0.0]], ["a", "b"], ["x", "y", "zzz"], digits=2)
    assert image.get_array().tolist() == [[0.0, 0.25, 1.0], [0.5, 0.0, 0.0]]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["x", "y", "zzz"]
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert written[1, 0] == ("0.25", INK)
    assert written[2, 0] == ("1.00", "white"), "a number on a dark square must be light"
    assert len(written) == 6


def test_limits_say_what_the_colours_mean():
    _, axes = new_figure()
    image = show_matrix(axes, [[0.2, 0.4]], limits=(0, 1))
    assert image.get_clim() == (0, 1)
    assert show_matrix(axes, [[0.2, 0.4]]).get_clim() == (0.2, 0.4)


@pytest.mark.parametrize(
    ("values", "rows", "columns", "words"),
    [([1.0, 2.0], None, None, "two axes"), ([[1.0]], ["a", "b"], None, "2 labels"), ([[1.0]], None, [], "0 labels")],
)
def test_what_does_not_fit_is_refused(values, rows, columns, words):
    _, axes = new_figure()
    with pytest.raises(ValueError, match=words):
        show_matrix(axes, values, rows, columns)
