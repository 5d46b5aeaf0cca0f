"""The control every retrieval score needs: an entity-marker classifier on the retriever's own encoder, no retrieval.

    python benchmarks/relation_classifier.py --train-count 800 --epochs 10 --seeds 0 1 2

Head, tail and context of the marked sentence are pooled as a retriever with pooling "roles" pools them; one linear
layer over the three vectors says the relation. Training data, test and official score are those of the recipes.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import Data
from retrograd.models.compute.compute import Compute
from retrograd.models.compute.precision import resolve_precision
from retrograd.models.compute.precision_probe import measure_seconds
from retrograd.models.compute.training_layers import training_attention
from retrograd.models.encoder import Encoder
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.training.sampling.batches import BatchOrder
from retrograd.types import Example
from retrograd.util.progress import bar

BATCH, RATE, HEAD_RATE = 16, 1e-4, 1e-3


class Classifier(nn.Module):
    """Logits [B C] over the answers of a task with a closed set."""

    answers: tuple[str, ...]

    def __init__(self, data: Data, encoder: str) -> None:
        super().__init__()
        self.task = data.task
        spans = data.task.role_spans
        self.tower = Encoder.open(encoder, "roles", normalise=False, max_tokens=128, role_spans=spans)
        self.answers = data.task.choices or ()
        self.head = nn.Linear(self.tower.dimension, len(self.answers))

    def forward(self, examples: list[Example]) -> Tensor:
        return self.head(self.tower([self.task.query_text(example) for example in examples]))

    @torch.no_grad()
    def choice_scores(self, examples: list[Example], size: int = 64) -> list[ChoiceScores]:
        """What `RagModel.choice_scores` says, without a vote."""
        self.eval()
        parts = [examples[start : start + size] for start in range(0, len(examples), size)]
        log_p = torch.cat([self(part).log_softmax(dim=-1) for part in parts])
        negative = self.task.negative_for(examples[0])
        where = self.answers.index(negative) if negative in self.answers else None
        return [ChoiceScores(self.answers, one, torch.zeros(len(one)), where) for one in log_p]


def train_classifier(data: Data, epochs: int, seed: int, encoder: str = "builtin:minilm") -> Classifier:
    """Cross-entropy, AdamW, rates up over a tenth of the steps and down to 0."""
    torch.manual_seed(seed)
    model = Classifier(data, encoder)
    number = {answer: i for i, answer in enumerate(model.answers)}
    order = BatchOrder(len(data.train), BATCH, epochs, torch.Generator().manual_seed(seed))
    groups = [
        {"params": list(model.tower.parameters()), "lr": RATE},
        {"params": list(model.head.parameters()), "lr": HEAD_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    schedule = OneCycleLR(
        optimiser, [RATE, HEAD_RATE], total_steps=order.steps, pct_start=0.1, anneal_strategy="linear"
    )
    cpu = torch.device("cpu")
    compute = Compute(cpu, resolve_precision("auto", cpu, "training", 384, measure_seconds).precision)
    with bar("classifier", order.steps, "steps") as advance:
        for _, positions in order.from_step(0):
            model.train()
            batch = [data.train[i] for i in positions.tolist()]
            with compute.autocast(), training_attention(cpu):
                logits = model(batch).float()
            loss = F.cross_entropy(logits, torch.tensor([number[example.target] for example in batch]))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            model.zero_grad()
            advance(1)
    return model


def main() -> None:
    """Train one classifier a seed and print the official scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--train-count", type=int, default=0, help="0 is all that is left of the training data")
    parser.add_argument("--dev-from-train", type=int, default=400, help="held out of training, as in the ETRAG recipes")
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--on", choices=("dev", "test"), default="test")
    options = parser.parse_args()
    settings = RelationData(
        train_count=options.train_count, dev_from_train=options.dev_from_train, seed=options.data_seed
    )
    scores = []
    for seed in options.seeds:
        data = settings.load(seed)
        model = train_classifier(data, options.epochs, seed)
        examples = data.dev if options.on == "dev" else data.test
        answers = [one.choices[Decision().choose(one)] for one in model.choice_scores(examples)]
        scores.append(data.task.score(examples, answers)["macro_f1"])
        print(
            f"seed {seed}: {len(data.train)} sentences, {options.epochs} epochs, macro-F1 {scores[-1]:.1f}", flush=True
        )
    if len(scores) > 1:
        print(f"mean {mean(scores):.1f}, standard deviation {stdev(scores):.1f}")


if __name__ == "__main__":
    main()
