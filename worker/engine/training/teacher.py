"""The teacher: any model that ONNX Runtime runs, trainable or not, asked about samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.engine.feeds import Feeds
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import open_session, run_session, session_options
from worker.engine.trainable.exposing import expose

# What a teacher says is asked once and kept in a file up to this size; it is the same in every epoch.
MOST_KEPT_BYTES = 1 << 30


class Teacher:
    """`names` are outputs or inner values, float, with a row for every sample."""

    def __init__(self, model: ModelFile, feeds: Feeds, names: Sequence[str], context: PassContext, folder: Path):
        self.feeds, self.names, self.folder = feeds, list(dict.fromkeys(names)), folder
        inner = set(self.names) - {value.name for value in model.structure().graph.output}
        exposed = expose(model, self.names, folder / "exposed") if inner else model
        options = session_options(context.threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch computes in between
        self.session = open_session(exposed.path, context.threads, options, context.device)
        self.kept: dict[str, np.ndarray] = {}

    def answers(self, samples: np.ndarray) -> Mapping[str, np.ndarray]:
        """By name a row for each of these samples."""
        if self.kept:
            return {name: array[samples] for name, array in self.kept.items()}
        if not self.names:
            return {}  # no name would mean every output
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        for call in self.feeds.calls(len(samples), samples):
            for name, value in zip(self.names, run_session(self.session, call.feed, self.names), strict=True):
                parts[name].append(value[None] if self.feeds.whole else value[: len(call.samples)])
        return {name: np.concatenate(found) for name, found in parts.items()}

    def keep_answers(self, samples: np.ndarray, batch: int, context: PassContext) -> bool:
        """Ask about these samples, ascending indices, now and remember, if there is room: an epoch then costs the
        student's time alone. Of others there is no answer then.

        Raises:
            BudgetExhausted: time is over meanwhile.

        """
        count = self.feeds.sample_count
        first = self.answers(samples[:batch])
        row_bytes = sum(array[:1].nbytes for array in first.values())
        if row_bytes * count > MOST_KEPT_BYTES:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            name: np.lib.format.open_memmap(
                self.folder / f"{number}.npy", mode="w+", dtype=first[name].dtype, shape=(count, *first[name].shape[1:])
            )
            for number, name in enumerate(self.names)
        }
        for start in range(0, len(samples), batch):
            context.check_time("what the teacher says of the training data")
            asked = samples[start : start + batch]
            for name, rows in self.answers(asked).items():
                kept[name][asked] = rows
        self.kept = dict(kept)
        return True
