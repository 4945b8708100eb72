import numpy as np
import pytest

from coopmap.config.data import AugmentationConfig
from coopmap.data.augmentation import draw_gains, jitter
from coopmap.geometry.stitching import brighten

OFF = AugmentationConfig(brightness=0, contrast=0, saturation=0, hue_deg=0, exposure=0, grayscale_prob=0, blur_prob=0)
IMAGE = np.random.default_rng(0).integers(60, 180, (28, 42, 3), np.uint8)


def varied(seed: int = 0, **changes) -> np.ndarray:
    config = AugmentationConfig(**{**vars(OFF), **changes})
    return jitter(IMAGE, config, np.random.default_rng(seed))


def test_no_jitter_changes_nothing():
    assert np.abs(varied().astype(int) - IMAGE).max() <= 1


def test_grayscale_has_equal_channels_and_keeps_luma():
    gray = varied(grayscale_prob=1.0).astype(int)
    assert np.ptp(gray, axis=-1).max() <= 1
    assert np.abs(gray[..., 0] - IMAGE @ [0.299, 0.587, 0.114]).max() <= 1.5


def test_brightness_scales_and_contrast_keeps_the_mean():
    brighter = [varied(seed, brightness=0.3).mean() / IMAGE.mean() for seed in range(20)]
    assert min(brighter) > 0.69
    assert max(brighter) < 1.31
    assert np.ptp(brighter) > 0.2
    harder = varied(1, contrast=0.3)
    assert harder.mean() == pytest.approx(IMAGE.mean(), abs=1)
    assert abs(harder.std() / IMAGE.std() - 1) > 0.02


def test_hue_keeps_gray_gray():
    config = AugmentationConfig(**{**vars(OFF), "hue_deg": 90})
    gray = np.full((14, 14, 3), 100, np.uint8)
    assert np.abs(jitter(gray, config, np.random.default_rng(0)).astype(int) - 100).max() <= 1
    assert np.abs(varied(hue_deg=90).astype(int) - IMAGE).max() > 5


def test_blur_smooths():
    assert varied(blur_prob=1.0).std() < IMAGE.std()


def test_each_camera_gets_its_own_exposure():
    gains = draw_gains(4, AugmentationConfig(exposure=0.2), np.random.default_rng(0))
    assert len(np.unique(gains.round(3))) == 4
    assert np.abs(gains - 1).max() < 0.2
    assert IMAGE.mean() * gains[0] == pytest.approx(brighten(IMAGE, gains[0]).mean(), abs=0.3)
