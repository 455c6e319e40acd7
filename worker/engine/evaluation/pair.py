"""A file and the one it was made of, each in a session of its own, fed the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from worker.engine.feeds import Call
from worker.engine.sessions import ModelFails, as_taken_by, run_session


@dataclass
class Pair:
    """Both sessions; outputs by name, inputs cast to what each declares."""

    original: ort.InferenceSession
    candidate: ort.InferenceSession

    def names(self) -> list[str]:
        return [output.name for output in self.original.get_outputs()]

    def run(self, call: Call) -> tuple[list[Any], list[Any]]:
        """What both answer. Raises ModelFails, also where the candidate answers in sizes that the original fixes."""
        left = run_session(self.original, call.feed)
        right = run_session(self.candidate, as_taken_by(self.candidate, call.feed), self.names())
        for face, original, candidate in zip(self.original.get_outputs(), left, right, strict=True):
            if isinstance(original, np.ndarray) and not _keeps_sizes(face.shape, original, np.asarray(candidate)):
                shapes = f"{list(np.shape(candidate))} where the original's has {list(original.shape)}"
                raise ModelFails(f"Output {face.name!r} has shape {shapes}.", None)
        return left, right


def _keeps_sizes(declared: list[Any], original: np.ndarray, candidate: np.ndarray) -> bool:
    """Whether the file is whole: of boxes it may find another number, of classes it may not have one."""
    if original.ndim != candidate.ndim:
        return False
    sizes = zip(declared, original.shape, candidate.shape, strict=False)  # declared of no axis where the rank is open
    return all(now == was for fixed, was, now in sizes if fixed == was)
