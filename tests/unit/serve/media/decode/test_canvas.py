"""A canvas is drawn on by the rules of the specification of PNG, and lies on white."""

from fractions import Fraction

import PIL.Image
import pytest

from serve.media.decode.canvas import Canvas, Disposal, Piece

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)
HALF_RED, HALF_BLUE, NOTHING = (255, 0, 0, 128), (0, 0, 255, 128), (0, 9, 0, 0)
WHITE = (255, 255, 255)
SIZE = (4, 3)
INSIDE, OUTSIDE = (1, 1), (3, 2)


def draw(canvas: Canvas, colour: tuple[int, ...], disposal: Disposal = Disposal.KEEP, *, blends: bool = True) -> None:
    """Draw a square of one colour at 1, 1, or the whole canvas if it is the first piece."""
    box = (1, 1, 3, 3)
    pixels = PIL.Image.new("RGBA", (2, 2), colour)
    canvas.draw(pixels, Piece(box, disposal, blends=blends, seconds=Fraction(1, 10), file=bytes))


def filled(colour: tuple[int, ...]) -> Canvas:
    canvas = Canvas(*SIZE)
    whole = Piece((0, 0, *SIZE), Disposal.KEEP, blends=False, seconds=Fraction(1), file=bytes)
    canvas.draw(PIL.Image.new("RGBA", SIZE, colour), whole)
    return canvas


def shown(canvas: Canvas, place: tuple[int, int] = INSIDE) -> tuple[int, ...]:
    pixel = canvas.on_white().getpixel(place)
    assert isinstance(pixel, tuple)
    return pixel


def test_a_canvas_is_white_where_nothing_was_drawn() -> None:
    canvas = Canvas(*SIZE)
    draw(canvas, RED)
    assert (shown(canvas), shown(canvas, OUTSIDE)) == ((255, 0, 0), WHITE)


@pytest.mark.parametrize(
    ("below", "above", "blended", "replaced"),
    [
        (RED, BLUE, (0, 0, 255), (0, 0, 255)),
        (RED, NOTHING, (255, 0, 0), WHITE),
        (RED, HALF_BLUE, (127, 0, 128), (127, 127, 255)),
        (HALF_RED, HALF_BLUE, (126, 63, 191), (127, 127, 255)),
        (HALF_RED, NOTHING, (255, 127, 127), WHITE),
        (NOTHING, HALF_BLUE, (127, 127, 255), (127, 127, 255)),
    ],
)
def test_a_piece_lies_over_what_is_there_or_replaces_it(
    below: tuple[int, ...], above: tuple[int, ...], blended: tuple[int, ...], replaced: tuple[int, ...]
) -> None:
    for blends, expected in ((True, blended), (False, replaced)):
        canvas = filled(below)
        draw(canvas, above, blends=blends)
        assert shown(canvas) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("disposal", "left"), [(Disposal.KEEP, (0, 0, 255)), (Disposal.CLEAR, WHITE), (Disposal.RESTORE, (255, 0, 0))]
)
def test_a_piece_is_disposed_of_before_the_next_one(disposal: Disposal, left: tuple[int, ...]) -> None:
    canvas = filled(RED)
    assert shown(canvas) == (255, 0, 0)
    draw(canvas, BLUE, disposal)
    assert shown(canvas) == (0, 0, 255)
    draw(canvas, NOTHING)
    assert shown(canvas) == left
    assert shown(canvas, OUTSIDE) == (255, 0, 0)


@pytest.mark.parametrize("disposal", [Disposal.CLEAR, Disposal.RESTORE])
def test_nothing_is_left_of_a_first_piece_that_is_disposed_of(disposal: Disposal) -> None:
    canvas = Canvas(*SIZE)
    draw(canvas, RED, disposal)
    draw(canvas, NOTHING)
    assert shown(canvas) == WHITE
