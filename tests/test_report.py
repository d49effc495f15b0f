"""Figures of a trained model, on answers that are known."""

import pytest
import torch

from vit.report import calibration_error, confusion_matrix


def test_confusion_and_calibration_of_known_answers():
    logits = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9]])
    labels = torch.tensor([0, 1, 1, 1])
    assert confusion_matrix(logits, labels).tolist() == [[1, 0], [1, 2]]
    sure = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert calibration_error(sure, labels) == pytest.approx(0.25)  # says 100 %, is right in 75 %
    unsure = torch.full((4, 2), 0.5)
    assert calibration_error(unsure, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.0)
