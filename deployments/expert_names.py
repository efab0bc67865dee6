"""What the name of a file says of the two experts of Wan 2.2 A14B, which share keys and shapes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

EXPERTS = ("high", "low")
_OF_TWO = re.compile(r"a14b|wan[-_. ]?2[-_. ]?2", re.IGNORECASE)
"""What the names of models with two experts have."""
_NOISY = {"high": ("high", "hi"), "low": ("low", "lo")}
"""The words that, before `noise`, mean an expert."""
_SHORT = {"high": ("hi", "hn", "h"), "low": ("lo", "ln", "l")}
"""Abbreviations of the experts, which often mean something else."""
_INITIALS = ("hn", "ln")
"""The abbreviations that seldom mean something else."""
_OF_LARGE = re.compile(r"(?<!\d)22(?!\d)|14b|[it]2v", re.IGNORECASE)
"""What the names of LoRAs for models with two experts have at least."""
_NOUNS = frozenset(
    (
        "angle",
        "angles",
        "budget",
        "contrast",
        "def",
        "detail",
        "details",
        "fps",
        "freq",
        "frequency",
        "key",
        "mem",
        "memory",
        "poly",
        "quality",
        "ram",
        "rank",
        "ratio",
        "res",
        "resolution",
        "steps",
        "vram",
    )
)
"""Words that a `high` or `low` before them belongs to, in capitals too."""
_TAGS = frozenset(
    (
        "and",
        "distill",
        "distilled",
        "ema",
        "epoch",
        "expert",
        "final",
        "fixed",
        "gguf",
        "high",
        "kj",
        "last",
        "lightning",
        "lora",
        "loras",
        "low",
        "merged",
        "model",
        "only",
        "pass",
        "pruned",
        "sampler",
        "scaled",
        "stage",
        "step",
        "transformer",
        "weights",
        "wan",
    )
)
"""Words for the version or the form of a model, to which a `high` or `low` before them does not
belong."""
_WORDS = re.compile(
    rf"(?:HIGH|LOW)(?=(?:e|fp|q|v)\d|noise|{'|'.join(sorted(_TAGS))})|[A-Z]?[a-z]+|[A-Z]+(?![a-z])",
)
"""The words of a name: a capital begins one, and a run of capitals is one. In `HIGHv2` and
`LOWnoise`, a word in small letters follows at once."""
_COUNTED = frozenset(("rank", "step"))
"""Words that say the form if a number follows, as in `low_rank64`."""
_ENDINGS = (".safetensors", ".gguf")


class _Certainty(IntEnum):
    """How sure it is that words mean an expert."""

    WEAK = 0
    """Words before others that they may belong to, as in `high_fashion` and `l_shaped`."""
    LETTER = 1
    """An abbreviation at the end, or before what says the version or form, as in `T2V_L_fp8`."""
    PLAIN = 2
    """`high` in such a place, as in `high_fp8`, and `HN` where a model has two experts."""
    CAPITALS = 3
    """`HIGH` among words that are not in capitals."""
    NOISE = 4
    """`high_noise` and the like, and a name without any other word."""


@dataclass(frozen=True)
class _Mention:
    """Words in a name that may mean an expert."""

    expert: str
    certainty: _Certainty
    begin: int
    end: int


@dataclass(frozen=True)
class Split:
    """A name without words that may mean an expert."""

    expert: str
    around: tuple[str, ...]
    """What is before, between and after these words. It is the same for two names that differ in
    exactly them."""
    likelihood: tuple[int, int, int]
    """The greater, the likelier it is that these words mean the expert."""

    @property
    def name(self) -> str:
        """What two names that differ in these words share."""
        shared = re.sub(r"\(\s*\)|\[\s*\]", "", "".join(self.around))
        return re.sub(r"([-_ .])[-_ .]+", r"\1", shared).strip("-_ .")


def experts_named(name: str) -> set[str]:
    """Return which of the experts `high` and `low` the words of a file's name mention.

    Publishers write `high_noise`, `HighNoise`, `hinoise`, `HIGH` or `high`, and the same for the
    other one. If some words are surer than others, only those count.
    """
    return _experts_from(name, _Certainty.PLAIN)


def experts_named_surely(name: str) -> set[str]:
    """Return the experts that a name mentions in words that mean nothing else.

    These are `high_noise` and the like, `HIGH` in capitals, and a name that has no other word. Else
    a plain `high` or `low` may belong to any other word, as in `low_poly`.
    """
    return _experts_from(name, _Certainty.CAPITALS)


def half_named(name: str, *, letters: bool = False) -> str | None:
    """Return the expert that a whole model or a LoRA is for, or None if its name names no one.

    A plain `high` or `low` counts where the name also says that the model has two experts, and
    where it cannot belong to the next word, as in `wan22_low_light`. With ``letters``, so does an
    abbreviation, as in `T2V-A14B_L`: of a LoRA, it would often be a size.
    """
    least = _Certainty.LETTER if letters else _Certainty.PLAIN
    named = _experts_from(name, least if _OF_TWO.search(name) else _Certainty.CAPITALS)
    return next(iter(named)) if len(named) == 1 else None


def without_expert(name: str, expert: str) -> str:
    """Return ``name`` without the words that surest mention ``expert``."""
    mentions = [mention for mention in _mentions(name) if mention.expert == expert]
    surest = max((mention.certainty for mention in mentions), default=None)
    return _split(name, [mention for mention in mentions if mention.certainty == surest]).name if mentions else name


def splits(name: str) -> Iterator[Split]:
    """Yield ``name`` without the words that may mean an expert, in each way that these can be read.

    Only another name with the same words around the other expert's shows which one is right. Either
    one mention of an expert is left out, or all of them. Beside sure words, others do not count.
    """
    mentions = _mentions(name)
    mentions = [mention for mention in mentions if mention.certainty >= _Certainty.CAPITALS] or mentions
    for mention in mentions:
        yield _split(name, [mention])
    for expert in EXPERTS:
        of_expert = [mention for mention in mentions if mention.expert == expert]
        if len(of_expert) > 1:
            yield _split(name, of_expert)


def _experts_from(name: str, least: _Certainty) -> set[str]:
    """Return the experts that the surest words of a name mean, if these are sure enough."""
    mentions = [mention for mention in _mentions(name) if mention.certainty >= least]
    surest = max((mention.certainty for mention in mentions), default=least)
    return {mention.expert for mention in mentions if mention.certainty == surest}


def _split(name: str, mentions: list[_Mention]) -> Split:
    """Return ``name`` without these mentions of one expert."""
    bounds = [0, *(bound for mention in mentions for bound in (mention.begin, mention.end)), len(name)]
    around = tuple(name[begin:end] for begin, end in zip(bounds[::2], bounds[1::2], strict=True))
    likelihood = (max(mention.certainty for mention in mentions), mentions[-1].begin, -len(mentions))
    return Split(mentions[0].expert, around, likelihood)


def _mentions(name: str) -> list[_Mention]:
    """Return all words of a name that may mean an expert, in their order."""
    stem = name.removesuffix(next((ending for ending in _ENDINGS if name.endswith(ending)), ""))
    words = [*_WORDS.finditer(stem)]
    of_two = _OF_TWO.search(stem) is not None
    has_letters = of_two or _OF_LARGE.search(stem) is not None
    found = []
    for match, following in pairwise([*words, None]):
        assert match is not None
        word = match[0].lower()
        for expert in EXPERTS:
            if word in _NOISY[expert] and following is not None and _is_noise(stem, match, following):
                found.append(_Mention(expert, _Certainty.NOISE, begin=match.start(), end=following.end()))
            elif word in [f"{noisy}noise" for noisy in _NOISY[expert]] or (word == expert and len(words) == 1):
                found.append(_Mention(expert, _Certainty.NOISE, *match.span()))
            elif word == expert and not _belongs_to(stem, match, following):
                found.append(_Mention(expert, _certainty(stem, match, following), *match.span()))
            elif word in _SHORT[expert] and (has_letters or word in _INITIALS):
                is_last = _certainty(stem, match, following) >= _Certainty.PLAIN
                certainty = _Certainty.LETTER if is_last else _Certainty.WEAK
                found.append(_Mention(expert, _Certainty.PLAIN if of_two and word in _INITIALS else certainty, *match.span()))
    return found


def _belongs_to(stem: str, match: re.Match[str], following: re.Match[str] | None) -> bool:
    """Return whether a `high` or `low` belongs to the word ``following``, as in `low_poly`."""
    if following is None or following[0].lower() not in _NOUNS or _has_digit(stem[match.end() : following.start()]):
        return False
    return not (following[0].lower() in _COUNTED and _has_digit(stem[following.end() : following.end() + 1]))


def _certainty(stem: str, match: re.Match[str], following: re.Match[str] | None) -> _Certainty:
    """Return how sure it is that a `high` or `low` means an expert."""
    # Where all is in capitals, they say nothing, but such a word at the end belongs to no other.
    if match[0].isupper() and (following is None or not stem.isupper()):
        return _Certainty.CAPITALS
    if following is None or following[0].lower() in _TAGS:
        return _Certainty.PLAIN
    # Numbers are those of versions, sizes and types: `high_v2`, `high 14b`, `high_fp8`.
    is_tag = _has_digit(stem[match.end() : following.start()] + stem[following.end() : following.end() + 1])
    return _Certainty.PLAIN if is_tag else _Certainty.WEAK


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _is_noise(stem: str, match: re.Match[str], following: re.Match[str]) -> bool:
    """Return whether the word ``following`` is `noise`, with at most a separator between."""
    return following[0].lower() == "noise" and stem[match.end() : following.start()] in ("", "-", "_", " ", ".")
