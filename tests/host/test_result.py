"""The status buffer's records against tokens moved about one by one; and what is drawn of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from host.result import Inference, kept_patches, stage_tokens
from hw.interface import STATUS_HEADER, Interface, Shapes
from spvit.images.drawing import DROPPED, GAP, VEIL, draw_kept, veil_dropped


@st.composite
def runs(draw):
    """A design's interface, a network's shapes, the status buffer of one run, and per selector the tokens and the patches that it kept."""
    prefix, patches, stages = draw(st.integers(1, 2)), draw(st.integers(1, 100)), draw(st.integers(0, 4))
    more_stages, more_rows = draw(st.integers(0, 2)), draw(st.integers(0, 70))  # that the design has room for
    interface = Interface(0, 1, 8, 8, 1, 8, 2, stages + more_stages, prefix + patches + more_rows)
    shapes = Shapes(8, 8, 1, 2, stages, prefix, prefix + patches)
    status = np.full(interface.status_words, -1, np.int32)
    rows = ["prefix"] * prefix + list(range(patches))
    expected = []
    for stage in range(stages):
        asked = [row for row in rows if isinstance(row, int)]
        kept = set(draw(st.lists(st.sampled_from(asked), unique=True))) if asked else set()
        flags = [not isinstance(row, int) or row in kept for row in rows]
        words = [
            sum(flag << i for i, flag in enumerate(flags[first : first + 32])) for first in range(0, interface.rows, 32)
        ]
        package = ["package"] if len(kept) < len(asked) else []
        rows = [row for row, flag in zip(rows, flags, strict=True) if flag] + package
        record = np.array([len(rows), *words], np.uint32).view(np.int32)
        first = STATUS_HEADER + stage * interface.stage_words
        status[first : first + interface.stage_words] = record
        expected.append((len(rows), sorted(kept)))
    return interface, shapes, status, expected


@given(runs())
def test_kept_patches_and_tokens(run):
    interface, shapes, status, expected = run
    assert stage_tokens(interface, shapes, status) == tuple(tokens for tokens, _ in expected)
    assert [patches.tolist() for patches in kept_patches(interface, shapes, status)] == [kept for _, kept in expected]


def test_no_images_have_a_shape():
    empty = Inference.of([], Shapes(8, 8, 1, 5, 2, 1, 17), 3)
    assert (empty.logits.shape, empty.tokens.shape, empty.classes.shape) == ((0, 5), (0, 2), (0,))


def test_dropped_patches_are_veiled():
    pixels = np.full((8, 8, 3), 200, np.uint8)
    pixels[:4, :4] = 0
    veiled = veil_dropped(pixels, np.array([1, 2]), 4)
    assert (veiled[:4, 4:] == 200).all() and (veiled[4:, :4] == 200).all()
    assert (veiled[:4, :4] == VEIL).all()  # black is told from black
    assert (veiled[4:, 4:] == np.array(VEIL) + 200 * DROPPED).all()
    assert pixels.max() == 200 and not pixels[:4, :4].any()


def test_panels_stand_side_by_side():
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, channels), dtype=np.uint8)
        strip = np.array(draw_kept(pixels, [np.arange(4), np.array([3])], 4))
        side = 160
        assert strip.shape == (side, 3 * side + 2 * GAP, 3)
        first, second, third = (strip[:, i * (side + GAP) :][:, :side] for i in range(3))
        assert np.array_equal(first[::20, ::20], np.broadcast_to(pixels, (8, 8, 3)))
        assert np.array_equal(second, first)
        assert np.array_equal(third[80:, 80:], first[80:, 80:])
        assert np.array_equal(third[0, 0], np.rint(pixels[0, 0] * DROPPED + VEIL))
