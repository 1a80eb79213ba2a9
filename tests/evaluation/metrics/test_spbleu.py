"""spBLEU is sacreBLEU's BLEU of the pieces of a SentencePiece model, which is downloaded once."""

from __future__ import annotations

import pytest
import sacrebleu.tokenizers.tokenizer_spm as spm
import sentencepiece
import tiny_run
from sacrebleu.metrics import BLEU

from mt.errors import DownloadError
from mt.evaluation.metrics.spbleu import Config, build

TEXTS = ["Ein Mann schläft in einem Raum."], [["Ein Mann schläft in einem roten Raum."]]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Where sacreBLEU keeps models, without a network."""
    monkeypatch.setattr(spm, "SACREBLEU_DIR", str(tmp_path))
    offline = {name: {**e, "url": "http://127.0.0.1:9/x"} for name, e in spm.SPM_MODELS.items()}
    monkeypatch.setattr(spm, "SPM_MODELS", offline)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_it_is_sacrebleus_with_the_flores_tokenizer(models):
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(tiny_run.TARGETS * 9), model_prefix=str(models / "x"),
        vocab_size=60, minloglevel=2,
    )  # fmt: skip
    (models / "x.model").rename(models / "x")
    found = build(Config(), "zh").score((), *TEXTS)
    assert "tok:flores200" in found.signature
    assert found.score == BLEU(tokenize="flores200").corpus_score(*TEXTS).score
    assert 0 < found.score < 100


def test_a_model_that_cannot_be_fetched_is_reported(models):
    with pytest.raises(DownloadError, match="flores200 cannot be fetched"):
        build(Config(), "de")
