"""Trains a MarianMTModel with Seq2SeqTrainer on pieces; prints a JSON object an update."""

import argparse
import json
from pathlib import Path

import torch
from transformers import (
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

PAD, UNK, BEGIN, END, FIRST = 0, 1, 2, 3, 4
TOKENS = 4096


class Pairs(torch.utils.data.Dataset):
    """Encoded pairs; the trainer groups them by their `length`."""

    column_names = ("input_ids", "labels", "length")

    def __init__(self, folder: Path) -> None:
        words = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
        self.size = FIRST + len(words)
        self.ids = {word: i for i, word in enumerate(words, start=FIRST)}
        self.source = self.encode(folder / "train.source")
        self.target = self.encode(folder / "train.target")

    def encode(self, path: Path) -> list[list[int]]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [[*(self.ids.get(word, UNK) for word in x.split()), END] for x in lines]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict:
        source, target = self.source[row], self.target[row]
        return {"input_ids": source, "labels": target, "length": len(target)}


def collate(rows: list[dict]) -> dict:
    def padded(key: str, value: int) -> torch.Tensor:
        tensors = [torch.tensor(row[key]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    source, labels = padded("input_ids", PAD), padded("labels", -100)
    start = torch.full((len(rows), 1), PAD)
    inputs = torch.cat([start, labels[:, :-1].clamp(min=PAD)], 1)  # Marian starts from padding
    mask = (source != PAD).long()
    return {
        "input_ids": source, "attention_mask": mask, "decoder_input_ids": inputs, "labels": labels,
    }  # fmt: skip


class CountingTrainer(Seq2SeqTrainer):
    """Remembers the target tokens of the update, padding not counted."""

    tokens = 0

    def training_step(self, model, inputs, *rest, **more):
        self.tokens = int((inputs["labels"] != -100).sum())
        return super().training_step(model, inputs, *rest, **more)


class Printer(TrainerCallback):
    """Prints a line at the end of each update."""

    trainer: CountingTrainer

    def on_step_end(self, args, state, control, **more) -> None:
        report = {"update": state.global_step, "target_tokens": self.trainer.tokens}
        print(json.dumps(report), flush=True)


def build_model(size: int) -> MarianMTModel:
    config = MarianConfig(
        vocab_size=size, d_model=256, encoder_layers=3, decoder_layers=3,
        encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=1024, decoder_ffn_dim=1024,
        dropout=0.1, attention_dropout=0.1, activation_dropout=0.1,
        activation_function="relu", scale_embedding=True, init_std=256**-0.5,
        pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=END, forced_eos_token_id=END,
        decoder_start_token_id=PAD, max_position_embeddings=512,
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
    )  # fmt: skip
    return MarianMTModel(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--updates", type=int, default=13)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    set_seed(1)
    pairs = Pairs(given.pieces)
    mean = sum(map(len, pairs.target)) / len(pairs)
    settings = Seq2SeqTrainingArguments(
        output_dir=str(given.work / "run"), max_steps=given.updates, use_cpu=True,
        # It counts sentences, and begins with the longest of each 50 batches: this number of
        # those has about TOKENS target tokens.
        per_device_train_batch_size=round(0.73 * TOKENS / mean),
        train_sampling_strategy="group_by_length", bf16=given.precision == "bf16",
        learning_rate=1e-3, lr_scheduler_type="inverse_sqrt", warmup_steps=200,
        label_smoothing_factor=0.1, adam_beta2=0.98, adam_epsilon=1e-9, weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1000, save_strategy="no", report_to=[], seed=1,
        remove_unused_columns=False, disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    printer = Printer()
    trainer = CountingTrainer(
        model=build_model(pairs.size), args=settings, train_dataset=pairs, data_collator=collate,
        callbacks=[printer],
    )  # fmt: skip
    printer.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main()
