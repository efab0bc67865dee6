import numpy as np

from serve.provenance.watermark.code import CODE_BITS, decode, decode_closely, encode
from serve.provenance.watermark.payload import MESSAGE_BITS


def messages(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 2, (count, MESSAGE_BITS), dtype=np.uint8)


def test_every_message_is_decoded_from_its_symbols() -> None:
    for message in messages(30):
        symbols = encode(message)
        assert symbols.shape == (CODE_BITS,)
        assert set(symbols) <= {-1.0, 1.0}
        assert (decode(symbols[None])[0] == message).all()


def viterbi(measured: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[int]:
    """Return the middle of three laps through the trellis, state by state as textbooks have it."""
    steps = [measured[at : at + 4] for at in range(0, CODE_BITS, 4)] * 3
    merits, paths = [0.0] * 256, [list[int]() for _ in range(256)]
    for step in steps:
        arrived = []
        for state in range(256):
            ways = []
            for before in (state >> 1, state >> 1 | 128):
                register = before << 1 | state & 1
                outputs = (1 - 2 * ((register & generator).bit_count() & 1) for generator in (0o765, 0o671, 0o513, 0o473))
                merit = merits[before] + sum(float(value) * sign for value, sign in zip(step, outputs, strict=True))
                ways.append((merit, [*paths[before], state & 1]))
            arrived.append(max(ways))
        merits, paths = [merit for merit, _ in arrived], [path for _, path in arrived]
    return paths[max(range(256), key=merits.__getitem__)][MESSAGE_BITS:-MESSAGE_BITS]


def test_many_messages_are_decoded_as_textbooks_decode_one() -> None:
    sent = messages(3)
    measured = encode(sent) + np.random.default_rng(9).normal(0, 2, (3, CODE_BITS)).astype(np.float32)
    found = decode(measured)
    assert found.tolist() == [viterbi(each) for each in measured]
    assert (found != sent).any(), "so much noise makes other messages likelier, so that more than a decision is compared"


def test_many_messages_are_encoded_as_one_is() -> None:
    many = messages(6).reshape(2, 3, MESSAGE_BITS)
    assert (encode(many) == [[encode(message) for message in row] for row in many]).all()


def test_the_code_is_circular() -> None:
    message = messages(1)[0]
    turned = encode(np.roll(message, 7))
    assert (turned == np.roll(encode(message), 7 * CODE_BITS // MESSAGE_BITS)).all()


def test_noise_of_the_strength_of_the_symbols_is_corrected() -> None:
    random = np.random.default_rng(5)
    right = 0
    for message in messages(40):
        measured = encode(message) + random.normal(0, 1, CODE_BITS).astype(np.float32)
        assert ((measured > 0) != (encode(message) > 0)).sum() > 5
        right += bool((decode(measured[None])[0] == message).all())
    assert right >= 38


def test_symbols_that_were_lost_in_a_row_are_corrected() -> None:
    for message in messages(20):
        measured = encode(message)
        measured[40:52] = 0
        assert (decode(measured[None])[0] == message).all()


def test_a_close_look_finds_the_most_likely_message_and_others() -> None:
    """In such noise, ``decode`` may miss a message that fits better than what it returns."""
    random = np.random.default_rng(6)
    for message in messages(30):
        measured = encode(message) + random.normal(0, 1.8, CODE_BITS).astype(np.float32)
        found = decode_closely(measured)
        best = max(float(measured @ encode(each)) for each in found)
        assert best >= float(measured @ encode(message)) - 1e-3
        assert best >= float(measured @ encode(decode(measured[None])[0])) - 1e-3
        assert len({each.tobytes() for each in found}) > 1
