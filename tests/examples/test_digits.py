"""The digits example: real data, parts that share nothing, a model as good as its script says."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from examples.digits import data as digits

MODEL = Path(digits.__file__).with_name("digits.onnx")


def test_the_parts_hold_every_sample_once() -> None:
    parts = digits.load()
    counts = [len(part.label) for part in (parts.training, parts.calibration, parts.evaluation)]
    assert counts == [1000, 197, 600]
    assert sum(counts) == 1797
    again = digits.load()
    np.testing.assert_array_equal(parts.evaluation.image, again.evaluation.image)


def test_no_image_is_in_two_parts() -> None:
    parts = digits.load()
    seen = [{image.tobytes() for image in part.image} for part in (parts.training, parts.calibration, parts.evaluation)]
    assert seen[0].isdisjoint(seen[1] | seen[2])
    assert seen[1].isdisjoint(seen[2])


def test_the_files_are_plain_arrays(tmp_path: Path) -> None:
    for path, count in zip(digits.write(tmp_path), (197, 600), strict=True):
        with np.load(path, allow_pickle=False) as arrays:
            assert sorted(arrays) == ["image", "label"]
            assert (arrays["image"].shape, arrays["image"].dtype) == ((count, 1, 8, 8), np.float32)
            assert (arrays["label"].shape, arrays["label"].dtype) == ((count,), np.int64)
            assert 0 <= arrays["image"].min() <= arrays["image"].max() <= 1


@pytest.mark.parametrize("batch", [1, 600])
def test_the_model_takes_any_batch_and_is_as_accurate_as_its_script_says(batch: int) -> None:
    evaluation = digits.load().evaluation
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    answers = [
        session.run(["logits"], {"image": evaluation.image[start : start + batch]})[0].argmax(axis=1)
        for start in range(0, len(evaluation.label), batch)
    ]
    accuracy = (np.concatenate(answers) == evaluation.label).mean()
    assert accuracy >= 0.99  # 595 of 600 where it was trained; another processor's rounding may tip one of them


def test_the_model_is_small_enough_for_the_repository() -> None:
    assert MODEL.stat().st_size < 200_000
