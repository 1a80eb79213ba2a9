"""`python -m sockeye.train` that also prints a JSON object an update.

Its own log counts the padding as tokens, so the real target tokens of a batch are counted here.
"""

import json

from sockeye import constants, train, training

step = training.EarlyStoppingTrainer._step


def counting_step(self, batch) -> bool:
    updated = step(self, batch)
    labels = batch.labels[constants.TARGET_LABEL_NAME]
    tokens = int((labels != constants.PAD_ID).sum())
    print(json.dumps({"update": self.state.updates, "target_tokens": tokens}), flush=True)
    return updated


if __name__ == "__main__":
    training.EarlyStoppingTrainer._step = counting_step
    train.main()
