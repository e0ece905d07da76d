"""LoRA fine-tuning as a user of TRL runs it: SFTTrainer, its defaults, padded batches of 8.

    THREADS=2 train_trl.py MODEL TOKENS bf16|f32

The first batch warms up and is not timed."""
import sys
import tempfile
import time

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

import common

BATCH = 8


class Clock(TrainerCallback):
    def __init__(self):
        self.start = self.end = None

    def on_step_end(self, args, state, control, **kwargs):
        self.end = time.perf_counter()
        if self.start is None:
            self.start = self.end


def main():
    folder, tokens, dtype = sys.argv[1:]
    common.use_threads()
    docs = common.documents(tokens)
    data = Dataset.from_list([{"input_ids": i, "labels": l} for i, l in docs[:BATCH] + docs])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=common.dtype_named(dtype))
    weights = common.weight_bytes(model.parameters())
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        args = SFTConfig(output_dir=scratch, per_device_train_batch_size=BATCH, num_train_epochs=1,
                         use_cpu=True, bf16=dtype == "bf16", shuffle_dataset=False,
                         save_strategy="no", report_to="none")
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, callbacks=[clock],
                             processing_class=AutoTokenizer.from_pretrained(folder),
                             peft_config=common.lora_config())
        loss = trainer.train().training_loss
    common.report(common.tokens_of(docs), clock.end - clock.start, weights, loss=loss)


if __name__ == "__main__":
    main()
