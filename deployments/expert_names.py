"""What the name of a file says of the two experts of Wan 2.2 A14B, which share keys and shapes."""

import re
from itertools import pairwise

EXPERTS = ("high", "low")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
"""The words of a name: a capital begins one, and a run of capitals is one."""
_OF_TWO = re.compile(r"a14b|wan[-_. ]?2[-_. ]?2", re.IGNORECASE)
"""What the names of models with two experts have."""


def experts_named(name: str) -> set[str]:
    """Return which of the experts `high` and `low` the words of a file's name mention.

    Publishers write `high_noise`, `HighNoise`, `HIGH` or `high`, and the same for the other one.
    """
    lower = [word.lower() for word in _words(name)]
    return experts_named_surely(name) or {expert for expert in EXPERTS if expert in lower}


def experts_named_surely(name: str) -> set[str]:
    """Return the experts that a name mentions in words that mean nothing else.

    These are `high_noise` and the like, and `HIGH` in capitals. A plain `high` or `low` may belong
    to any other word, as in `low_poly`.
    """
    words = _words(name)
    return _noises(words) or {expert for expert in EXPERTS if expert.upper() in words}


def half_named(name: str) -> str | None:
    """Return the expert that a whole model or a LoRA is for, or None if its name names no one.

    A plain `high` or `low` counts where the name also says that the model has two experts.
    """
    named = experts_named(name) if _OF_TWO.search(name) else experts_named_surely(name)
    return next(iter(named)) if len(named) == 1 else None


def without_expert(name: str, expert: str) -> str:
    """Return ``name`` without the words that mention ``expert``: what the files of a pair share."""
    spans = _spans(name, expert)
    rest, end = "", 0
    for begin, next_end in spans:
        rest, end = rest + name[end:begin], next_end
    return re.sub(r"([-_ .])[-_ .]+", r"\1", rest + name[end:]).strip("-_ .")


def around_expert(name: str, expert: str) -> tuple[str, ...]:
    """Return what is before, between and after the words that mention ``expert``.

    It is the same for two names that differ in exactly these words.
    """
    bounds = [0, *(bound for span in _spans(name, expert) for bound in span), len(name)]
    return tuple(name[begin:end] for begin, end in zip(bounds[::2], bounds[1::2], strict=True))


def _words(name: str) -> list[str]:
    return _WORDS.findall(name)


def _noises(words: list[str]) -> set[str]:
    lower = [word.lower() for word in words]
    return {expert for expert in EXPERTS if f"{expert}noise" in lower or (expert, "noise") in pairwise(lower)}


def _spans(name: str, expert: str) -> list[tuple[int, int]]:
    """Return where ``name`` mentions ``expert``, with the word `noise` if it has that anywhere."""
    plain: list[tuple[int, int]] = []
    noises: list[tuple[int, int]] = []
    for match in _WORDS.finditer(name):
        word = match[0].lower()
        if plain and word == "noise" and name[plain[-1][1] : match.start()] in ("", "-", "_", " "):
            noises.append((plain.pop()[0], match.end()))
        elif word == expert:
            plain.append(match.span())
        elif word == f"{expert}noise":
            noises.append(match.span())
    return noises or plain
