"""The golden model on a CUDA GPU: in float32 the CPU's numbers, and the same when compiled."""

import pytest
import torch

from coopmap.models.compilation import compile_blocks

from .support import GOLDEN_CONFIGS
from .test_golden import objective, observed, predict

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(autouse=True)
def _products_of_float32():
    """Convolutions round to 10 bits of mantissa by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_outputs_and_gradients_of_the_cpu(name, compiled, golden_inputs, monkeypatch):
    predictions, gradients = [], []
    for device in ("cpu", "cuda"):
        inputs = {key: value.to(device) for key, value in golden_inputs.items()}
        model, prediction = predict(name, "all_geometry", inputs, monkeypatch)
        if compiled and device == "cuda":
            compile_blocks(model)
            prediction = model(observed(inputs))
        objective(prediction).backward()
        predictions.append(prediction)
        gradients.append({key: value.grad.norm().cpu() for key, value in model.named_parameters()})
    for field in ("rays", "depth", "pose_trans", "pose_quat", "scale", "confidence", "mask_logits", "points_world"):
        on_cpu, on_gpu = (getattr(prediction, field).detach().cpu() for prediction in predictions)
        assert (on_gpu - on_cpu).abs().max() < 1e-4 * on_cpu.abs().max(), field
    torch.testing.assert_close(gradients[1], gradients[0], rtol=2e-3, atol=1e-6)
