"""BLEU, chrF and TER by sacreBLEU, each with its signature.

BLEU multiplies the precisions of n-grams up to four tokens. Where no translation has four tokens
it is undefined, and sacreBLEU returns 0: a Score then says so, and nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from mt.config.schema import EvaluationConfig
from mt.data import languages
from mt.data.languages import sentence_separator
from mt.errors import ConfigError, DataError, DownloadError

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric


TOKENIZERS = {
    **dict.fromkeys(languages.CHINESE, "zh"),
    **dict.fromkeys(languages.JAPANESE, "ja-mecab"),
    **dict.fromkeys(languages.KOREAN, "ko-mecab"),
    **dict.fromkeys(languages.SPACELESS_WORDS, "char"),
}
"""sacreBLEU's tokenizer for a language that 13a does not split into words. `flores200` splits the
languages of SPACELESS_WORDS too, but sacreBLEU must download its model."""
UNDEFINED = "no translation has four tokens"
"""Why BLEU is undefined."""
EXTRAS = {"ja-mecab": "japanese", "ko-mecab": "korean"}


class MetricScore(TypedDict):
    """A score, and sacreBLEU's signature of its computation."""

    score: float
    signature: str
    undefined: NotRequired[str]
    """Why the score means nothing, if it does."""


Scores = dict[str, MetricScore]
"""`BLEU`, `chrF2` and `TER`, or those of them in `evaluation.metrics`."""


def score_translations(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_language: str,
    evaluation: EvaluationConfig,
) -> Scores:  # fmt: skip
    """The scores of raw translations, with their signatures; `references`: a list each.

    Raises:
        DataError: the counts differ, or there is nothing to score.
        ConfigError: the tokenizer is not installed.
    """
    for each in references:
        if len(each) != len(hypotheses):
            what = f"{len(hypotheses)} hypotheses, {len(each)} references"
            raise DataError("TEST-LINES", "evaluate", what, "line n of one must translate line n")
    if not hypotheses:
        raise DataError("TEST-EMPTY", "evaluate", "there is nothing to score", "see the test set")
    result: Scores = {}
    for name, metric in make_metrics(target_language, evaluation).items():
        score = metric.corpus_score(list(hypotheses), [list(each) for each in references])
        result[name] = {"score": round(score.score, 2), "signature": str(metric.get_signature())}
        if name == "BLEU" and is_undefined(score):
            result[name]["undefined"] = UNDEFINED
    return result


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[str], language: str,
    evaluation: EvaluationConfig,
) -> tuple[float, float]:  # fmt: skip
    """BLEU and chrF2 of translations with one reference each; NaN for an undefined BLEU."""
    evaluation = evaluation.model_copy(update={"metrics": ("bleu", "chrf")})
    metrics, texts = make_metrics(language, evaluation), (list(hypotheses), [list(references)])
    bleu, chrf = metrics["BLEU"].corpus_score(*texts), metrics["chrF2"].corpus_score(*texts)
    return math.nan if is_undefined(bleu) else bleu.score, chrf.score


def is_undefined(bleu: Any) -> bool:
    """Whether sacreBLEU's BLEUScore is of translations without a single 4-gram."""
    return bleu.totals[-1] == 0


def make_metrics(target_language: str, evaluation: EvaluationConfig) -> dict[str, Metric[Any]]:
    """sacreBLEU's metrics of `evaluation.metrics` for a language.

    Raises:
        ConfigError: the tokenizer is not installed.
        DownloadError: the tokenizer's model cannot be fetched.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    name = pick_tokenizer(target_language, evaluation)
    try:
        bleu = BLEU(tokenize=name, lowercase=evaluation.lowercase, force=True)
    except RuntimeError:
        what = f"the tokenizer {name} is not installed"
        advice = f"pip install 'mt[{EXTRAS[name]}]', or set another one, such as char"
        raise ConfigError("TOKENIZER", "evaluation.tokenize", what, advice) from None
    except OSError as error:
        what = f"the model of the tokenizer {name} cannot be fetched ({error})"
        advice = "go online once, or set another evaluation.tokenize"
        raise DownloadError("TOKENIZER", "evaluation.tokenize", what, advice) from None
    # TER splits text without spaces into words only with `asian_support`.
    asian = not sentence_separator(target_language)
    metrics = {
        "bleu": ("BLEU", bleu),
        "chrf": ("chrF2", CHRF(lowercase=evaluation.lowercase)),
        "ter": ("TER", TER(normalized=asian, asian_support=asian)),
    }
    return dict(metrics[name] for name in evaluation.metrics)


def pick_tokenizer(target_language: str, evaluation: EvaluationConfig) -> str:
    """The name of sacreBLEU's tokenizer for a language."""
    if evaluation.tokenize != "auto":
        return evaluation.tokenize
    base, script, _ = languages.parse_language(target_language)
    if script == "latn":  # a romanisation, with spaces
        return "13a"
    if script in languages.SPACELESS_SCRIPTS:
        return "char"
    return TOKENIZERS.get(base, "13a")


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return the chrF2 of each translation by itself."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    pairs = zip(hypotheses, references, strict=True)
    return [metric.sentence_score(a, [b]).score for a, b in pairs]
