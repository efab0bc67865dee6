import numpy as np
import pytest

from serve.provenance.watermark.payload import MESSAGE_BITS, Payload, is_valid

PAYLOADS = [Payload(0, 0), Payload(15, (1 << 28) - 1), Payload(5, 0x1234567), Payload(0, 1)]


@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_a_message_is_read_as_the_payload_that_it_was_made_of(payload: Payload) -> None:
    assert len(payload.message) == MESSAGE_BITS
    assert Payload.read(payload.message) == payload


@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_a_message_with_up_to_three_wrong_bits_in_a_row_is_no_payload(payload: Payload) -> None:
    for length in (1, 2, 3):
        for first in range(MESSAGE_BITS - length + 1):
            message = payload.message.copy()
            message[first : first + length] ^= 1
            assert Payload.read(message) is None


@pytest.mark.parametrize(
    ("payload", "message"),
    list(zip(PAYLOADS, ("00000000ff", "ffffffff81", "51234567c6", "00000001d0"), strict=True)),
    ids=str,
)
def test_the_message_of_a_payload_never_changes(payload: Payload, message: str) -> None:
    """Else what was marked in the past could not be read any more."""
    assert np.packbits(payload.message).tobytes().hex() == message


def test_many_messages_are_checked_as_one_is() -> None:
    random = np.random.default_rng(8).integers(0, 2, (2000, MESSAGE_BITS), dtype=np.uint8)
    messages = np.concatenate([random, [payload.message for payload in PAYLOADS]])
    valid = [Payload.read(message) is not None for message in messages]
    assert 0 < sum(valid[:-4]) < 40  # one in 256 is right by chance
    assert all(valid[-4:])
    assert is_valid(messages).tolist() == valid


def test_a_message_of_equal_bits_is_no_payload() -> None:
    assert Payload.read(np.zeros(MESSAGE_BITS, np.uint8)) is None


@pytest.mark.parametrize(("key_id", "request_number"), [(-1, 0), (16, 0), (0, -1), (0, 1 << 28)])
def test_a_number_that_does_not_fit_is_refused(key_id: int, request_number: int) -> None:
    with pytest.raises(ValueError, match="must be from 0 to"):
        Payload(key_id, request_number)


def test_a_payload_is_written_as_the_log_has_it() -> None:
    assert str(Payload(10, 0xABC)) == "a-0000abc"
