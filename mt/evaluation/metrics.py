"""BLEU, chrF and TER by sacreBLEU, each with its signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from mt.config.schema import EvaluationConfig
from mt.data.languages import base_code, sentence_separator
from mt.errors import ConfigError, DataError, DownloadError

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric


TOKENIZERS = {"zh": "zh", "cmn": "zh", "zho": "zh", "yue": "zh", "lzh": "zh"}
TOKENIZERS |= {"ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab", "kor": "ko-mecab"}
EXTRAS = {"ja-mecab": "japanese", "ko-mecab": "korean"}


class MetricScore(TypedDict):
    """A score, and sacreBLEU's signature of its computation."""

    score: float
    signature: str


Scores = dict[str, MetricScore]
"""`BLEU`, `chrF2` and `TER`."""


def score_translations(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_language: str,
    evaluation: EvaluationConfig,
) -> Scores:  # fmt: skip
    """BLEU, chrF2 and TER of raw translations, with their signatures; `references`: a list each.

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
        score = metric.corpus_score(list(hypotheses), [list(each) for each in references]).score
        result[name] = {"score": round(score, 2), "signature": str(metric.get_signature())}
    return result


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[str], language: str,
    evaluation: EvaluationConfig,
) -> tuple[float, float]:  # fmt: skip
    """BLEU and chrF2 of translations with one reference each."""
    metrics, texts = make_metrics(language, evaluation), (list(hypotheses), [list(references)])
    return metrics["BLEU"].corpus_score(*texts).score, metrics["chrF2"].corpus_score(*texts).score


def make_metrics(target_language: str, evaluation: EvaluationConfig) -> dict[str, Metric[Any]]:
    """sacreBLEU's metrics for a language.

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
    return {
        "BLEU": bleu,
        "chrF2": CHRF(lowercase=evaluation.lowercase),
        "TER": TER(normalized=asian, asian_support=asian),
    }


def pick_tokenizer(target_language: str, evaluation: EvaluationConfig) -> str:
    """The name of sacreBLEU's tokenizer for a language."""
    if evaluation.tokenize != "auto":
        return evaluation.tokenize
    return TOKENIZERS.get(base_code(target_language), "13a")
