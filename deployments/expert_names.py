"""What the name of a file says of the two experts of Wan 2.2 A14B, which share keys and shapes."""

import re
from itertools import pairwise

EXPERTS = ("high", "low")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
"""The words of a name: a capital begins one, and a run of capitals is one."""
_OF_TWO = re.compile(r"a14b|wan[-_. ]?2[-_. ]?2", re.IGNORECASE)
"""What the names of models with two experts have."""
_NOISES = {"high": ("high", "hi"), "low": ("low", "lo")}
"""The words that, before `noise`, mean an expert."""
_SHORT = {"high": ("hi", "hn", "h"), "low": ("lo", "ln", "l")}
"""Abbreviations of the experts, which often mean something else."""
_ENDINGS = (".safetensors", ".gguf")


def experts_named(name: str) -> set[str]:
    """Return which of the experts `high` and `low` the words of a file's name mention.

    Publishers write `high_noise`, `HighNoise`, `hinoise`, `HIGH` or `high`, and the same for the
    other one.
    """
    lower = [word.lower() for word in _words(name)]
    return experts_named_surely(name) or {expert for expert in EXPERTS if expert in lower}


def experts_hinted(name: str) -> set[str]:
    """Return the experts that a name may mean, also by `hi`, `HN`, `H` and the like.

    Only another file with the counterpart in its name shows that these are meant.
    """
    lower = {word.lower() for word in _words(name)}
    return experts_named(name) or {expert for expert in EXPERTS if not lower.isdisjoint(_SHORT[expert])}


def experts_named_surely(name: str) -> set[str]:
    """Return the experts that a name mentions in words that mean nothing else.

    These are `high_noise` and the like, `HIGH` in capitals, and a name that has no other word. Else
    a plain `high` or `low` may belong to any other word, as in `low_poly`.
    """
    words = _words(_stem(name))
    alone = {words[0].lower()} & {*EXPERTS} if len(words) == 1 else set()
    return _noises(words) or alone or {expert for expert in EXPERTS if expert.upper() in words}


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


def _stem(name: str) -> str:
    return name.removesuffix(next((ending for ending in _ENDINGS if name.endswith(ending)), ""))


def _words(name: str) -> list[str]:
    return _WORDS.findall(name)


def _noises(words: list[str]) -> set[str]:
    lower = [word.lower() for word in words]
    pairs = {*pairwise(lower)}
    return {
        expert for expert in EXPERTS if any(f"{word}noise" in lower or (word, "noise") in pairs for word in _NOISES[expert])
    }


def _spans(name: str, expert: str) -> list[tuple[int, int]]:
    """Return where ``name`` mentions ``expert``, in the surest of the forms that it has."""
    noises: list[tuple[int, int]] = []
    plain: list[tuple[int, int]] = []
    short: list[tuple[int, int]] = []
    matches = [*_WORDS.finditer(name), None]
    for match, following in pairwise(matches):
        assert match is not None
        word, (begin, end) = match[0].lower(), match.span()
        if word in _NOISES[expert] and _is_noise(name, end, following):
            assert following is not None
            noises.append((begin, following.end()))
        elif word in [f"{noisy}noise" for noisy in _NOISES[expert]]:
            noises.append((begin, end))
        elif word == expert:
            plain.append((begin, end))
        elif word in _SHORT[expert]:
            short.append((begin, end))
    return noises or plain or short


def _is_noise(name: str, end: int, following: re.Match[str] | None) -> bool:
    """Return whether the word ``following`` is `noise`, at most a separator behind ``end``."""
    return following is not None and following[0].lower() == "noise" and name[end : following.start()] in ("", "-", "_", " ")
