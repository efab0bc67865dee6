"""What the name of a file says of the two experts of Wan 2.2 A14B, which share keys and shapes."""

import re

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
"""The words of a name: a capital begins one, and a run of capitals is one."""


def experts_named(name: str) -> set[str]:
    """Return which of the experts `high` and `low` the words of a file's name mention.

    Publishers write `high_noise`, `HighNoise`, `HIGH` or `high`, and the same for the other one.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    noises = {expert for expert in ("high", "low") if f"{expert}noise" in words or f"{expert} noise" in " ".join(words)}
    return noises or {expert for expert in ("high", "low") if expert in words}


def without_expert(name: str, expert: str) -> str:
    """Return ``name`` without the words that mention ``expert``: what the files of a pair share."""
    spans: list[tuple[int, int]] = []
    for match in _WORDS.finditer(name):
        word = match[0].lower()
        if spans and word == "noise" and name[spans[-1][1] : match.start()] in ("", "-", "_", " "):
            spans[-1] = (spans[-1][0], match.end())
        elif word in (expert, f"{expert}noise"):
            spans.append(match.span())
    rest, end = "", 0
    for begin, next_end in spans:
        rest, end = rest + name[end:begin], next_end
    return re.sub(r"([-_ .])[-_ .]+", r"\1", rest + name[end:]).strip("-_ .")
