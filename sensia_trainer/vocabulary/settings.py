"""Whether and how a run gives its model words of the target language before the first step."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..languages import language
from ..utils.ranges import BELOW_ONE, NOT_NEGATIVE, Range, check_ranges
from ..utils.recipes import expand_variables


METHODS = ("translation", "parts", "mean")


@dataclass
class VocabularySettings:
    """New words, learned from the training pairs."""

    FREE: ClassVar = ("vocabulary_cache",)  # does not tell runs apart

    vocabulary_size: int = field(
        default=0,
        metadata={
            "help": "New words of the target language (of all together, where there are several); 0: the tokenizer "
            "stays, as in the paper."
        },
    )
    vocabulary_languages: list[str] | None = field(
        default=None,
        metadata={
            "help": "Of several languages, those that share the new words; text of the others is cut as before. "
            "Default: all but the source language."
        },
    )
    vocabulary_transfer: str = field(
        default="translation",
        metadata={
            "help": "Where new words start: translation (from the words they are translated by), parts (from the "
            "tokens that spelled them before) or mean (from all words)."
        },
    )
    vocabulary_dictionary: str | None = field(
        default=None,
        metadata={"help": "Word pairs besides the bitext: a file with two columns, the source language first."},
    )
    vocabulary_source_change: float = field(
        default=0.0,
        metadata={
            "help": "Share of the source sentences that the new words may cut differently. 0.001 gives back most of "
            "what a few untranslated sentences cost."
        },
    )

    vocabulary_leave_out: float = field(
        default=0.0,
        metadata={
            "help": "Share of the new words that are not given their translations and start from the tokens that "
            "spelled them: what becomes of them shows what training adds to the dictionary."
        },
    )
    vocabulary_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder where new vocabularies are kept by what they were learned from, so that runs share them."
        },
    )

    def __post_init__(self):
        check_ranges(
            self,
            {
                "vocabulary_size": NOT_NEGATIVE,
                "vocabulary_source_change": Range(0, 1),
                "vocabulary_leave_out": BELOW_ONE,
            },
        )
        for name in ("vocabulary_dictionary", "vocabulary_leave_out"):
            if getattr(self, name) and self.vocabulary_transfer != "translation":
                raise ValueError(
                    f"`{name}` is of translations, of which `vocabulary_transfer`={self.vocabulary_transfer!r} makes "
                    "no use: leave one of them out."
                )
        if self.vocabulary_dictionary and not self.vocabulary_size:
            raise ValueError(
                "`vocabulary_dictionary` is of new words, but there are none: give their number as `vocabulary_size`."
            )
        if self.vocabulary_languages is not None:
            self.vocabulary_languages = [language(code).code for code in self.vocabulary_languages]
        if self.vocabulary_transfer not in METHODS:
            raise ValueError(f"`vocabulary_transfer` is {self.vocabulary_transfer!r}, but must be one of {METHODS}.")

    def arguments(self, languages, seed) -> dict:
        """Arguments of `extension.learn_extension`; `languages` are the codes of source and target."""
        dictionary = self.vocabulary_dictionary
        return {
            "size": self.vocabulary_size,
            "source_language": languages[0],
            "target_language": languages[1],
            "method": self.vocabulary_transfer,
            "dictionary": dictionary and expand_variables(dictionary),
            "max_source_change": self.vocabulary_source_change,
            "leave_out": self.vocabulary_leave_out,
            "seed": seed,
        }
