"""Scores of translations by the metrics of `evaluation.metrics`, each with its signature.

BLEU multiplies the precisions of n-grams up to four tokens. Where no translation has four tokens
it is undefined, and sacreBLEU returns 0: a Score then says so, and nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict, cast

from mt.config.plugins import plugin
from mt.config.schema import EvaluationConfig, MetricConfig
from mt.data import languages
from mt.errors import ConfigError, DataError, DownloadError
from mt.evaluation.moses_tokenizer import MosesTokenizer

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreBleu


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
EXTRAS = {"ja-mecab": "japanese", "ko-mecab": "korean", "moses": "moses"}
"""The extra of mt that a tokenizer needs."""


@dataclass(frozen=True)
class CorpusScore:
    """What a metric says of the translations of a text."""

    score: float
    signature: str
    """How it was computed, as sacreBLEU writes it: `key:value|key:value`."""
    segments: Sequence[float] | None = None
    """The score of each line, if that of the text is their mean."""
    undefined: str | None = None
    """Why the score means nothing, if it does."""


class Metric(Protocol):
    """Scores translations; its name and direction are in its Config."""

    def score(
        self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> CorpusScore:
        """Score raw translations; `references` is a list of lines for each reference.

        The sources are empty unless the Config says `needs_sources`.
        """


@dataclass(frozen=True)
class SacreBleuMetric(Metric):
    """A metric of sacreBLEU."""

    metric: SacreBleu[Any]

    def score(
        self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> CorpusScore:
        """Score translations as `sacrebleu` does."""
        found = self.metric.corpus_score(list(hypotheses), [list(each) for each in references])
        why = UNDEFINED if is_undefined(found) else None
        return CorpusScore(found.score, str(self.metric.get_signature()), undefined=why)


class MetricScore(TypedDict):
    """A score, and the signature of its computation."""

    score: float
    signature: str
    undefined: NotRequired[str]
    """Why the score means nothing, if it does."""


Scores = dict[str, MetricScore]
"""The score of each metric by its name in results: `BLEU`, `chrF2`, `TER` ..."""


def score_translations(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_language: str,
    evaluation: EvaluationConfig, sources: Sequence[str] | None = None,
) -> Scores:  # fmt: skip
    """Return the scores of raw translations; `references` is a list of lines for each.

    Without `sources`, metrics that need them are left out.

    Raises:
        DataError: the counts differ, or there is nothing to score.
        ConfigError: the tokenizer is not installed.
    """
    if sources is None:
        chosen = tuple(each for each in evaluation.metrics if not each.needs_sources)
        evaluation = evaluation.model_copy(update={"metrics": chosen})
    metrics = make_metrics(target_language, evaluation)
    found = score_all(metrics, sources or (), hypotheses, references)
    return {name: as_result(each) for name, each in found.items()}


def score_all(
    metrics: Mapping[str, Metric], sources: Sequence[str], hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
) -> dict[str, CorpusScore]:  # fmt: skip
    """Return the score of raw translations by each metric.

    Raises:
        DataError: the counts differ, or there is nothing to score.
    """
    for each in references:
        if len(each) != len(hypotheses):
            what = f"{len(hypotheses)} hypotheses, {len(each)} references"
            raise DataError("TEST-LINES", "evaluate", what, "line n of one must translate line n")
    if not hypotheses:
        raise DataError("TEST-EMPTY", "evaluate", "there is nothing to score", "see the test set")
    return {name: metric.score(sources, hypotheses, references) for name, metric in metrics.items()}


def as_result(found: CorpusScore) -> MetricScore:
    """Return what `mt eval --json` prints of a score."""
    digits = 2 if found.segments is None else 4  # learned metrics are often between 0 and 1
    result: MetricScore = {"score": round(found.score, digits), "signature": found.signature}
    if found.undefined:
        result["undefined"] = found.undefined
    return result


def score_by(
    label: str, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str],
    language: str, evaluation: EvaluationConfig,
) -> float:  # fmt: skip
    """Return one score of translations with one reference each; NaN: it is undefined."""
    metric = build_metric(evaluation.metric(label), language, evaluation)
    found = metric.score(sources, hypotheses, [references])
    return math.nan if found.undefined else found.score


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[str], language: str,
    evaluation: EvaluationConfig,
) -> tuple[float, float]:  # fmt: skip
    """BLEU and chrF2 of translations with one reference each; NaN for an undefined BLEU."""
    bleu, chrf = (
        score_by(label, (), hypotheses, references, language, evaluation)
        for label in ("bleu", "chrf")
    )
    return bleu, chrf


def is_undefined(score: Any) -> bool:
    """Whether sacreBLEU's score is a BLEUScore of translations without a single 4-gram."""
    totals = getattr(score, "totals", None)
    return totals is not None and totals[-1] == 0


def make_metrics(target_language: str, evaluation: EvaluationConfig) -> dict[str, Metric]:
    """Build the metrics of `evaluation.metrics` for a language, by their names in results.

    Raises:
        ConfigError: a tokenizer is not installed.
        DownloadError: the model of a tokenizer cannot be fetched.
        ModelError: a metric imports or starts what the user has not named.
    """
    return {
        config.result_name: build_metric(config, target_language, evaluation)
        for config in evaluation.metrics
    }


def build_metric(
    config: MetricConfig, target_language: str, evaluation: EvaluationConfig
) -> Metric:
    """Build a metric; what its Config leaves open is as `evaluation` says."""
    inherited: dict[str, Any] = {
        key: getattr(evaluation, key)
        for key in ("tokenize", "lowercase")
        if key in type(config).model_fields and getattr(config, key) is None
    }
    config = config.model_copy(update=inherited)
    return cast(Metric, plugin("metrics", config.kind).build(config, target_language))


def make_bleu(tokenize: str, lowercase: bool, target_language: str) -> SacreBleuMetric:
    """Return sacreBLEU's BLEU with a tokenizer; `auto` is that of the language.

    With `moses` and lower case it is the tokenised BLEU of papers (`multi-bleu.perl`).

    Raises:
        ConfigError: the tokenizer is not installed.
        DownloadError: its model cannot be fetched.
    """
    from sacrebleu.metrics import BLEU

    name = pick_tokenizer(target_language, tokenize)
    try:
        metric = BLEU(tokenize="none" if name == "moses" else name, lowercase=lowercase, force=True)
        if name == "moses":
            metric.tokenizer = MosesTokenizer(languages.parse_language(target_language)[0])
            metric.tokenizer_signature = metric.tokenizer.signature()
        return SacreBleuMetric(metric)
    except (RuntimeError, ImportError):
        what = f"the tokenizer {name} is not installed"
        advice = f"pip install 'mt[{EXTRAS[name]}]', or set another one, such as char"
        raise ConfigError("TOKENIZER", "evaluation.tokenize", what, advice) from None
    except OSError as error:
        what = f"the model of the tokenizer {name} cannot be fetched ({error})"
        advice = "go online once, or choose another tokenizer (for spbleu: another metric)"
        raise DownloadError("TOKENIZER", "evaluation.tokenize", what, advice) from None


def make_chrf(lowercase: bool, word_order: int) -> SacreBleuMetric:
    """Return sacreBLEU's chrF2, with n-grams of up to `word_order` words."""
    from sacrebleu.metrics import CHRF

    return SacreBleuMetric(CHRF(lowercase=lowercase, word_order=word_order))


def pick_tokenizer(target_language: str, tokenize: str = "auto") -> str:
    """Return the name of sacreBLEU's tokenizer for a language, unless one is chosen already."""
    if tokenize != "auto":
        return tokenize
    base, script, _ = languages.parse_language(target_language)
    if script == "latn":  # a romanisation, with spaces
        return "13a"
    if script in languages.SPACELESS_SCRIPTS:
        return "char"
    return TOKENIZERS.get(base, "13a")


def sentence_chrf(hypotheses: Sequence[str], *references: Sequence[str]) -> list[float]:
    """Return the chrF2 of each translation by itself; `references` are a list of lines each."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    rows = zip(hypotheses, *references, strict=True)
    return [metric.sentence_score(hypothesis, wanted).score for hypothesis, *wanted in rows]
