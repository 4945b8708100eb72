"""Arguments of Lightning's trainer are refused by name before anything is built."""

import pytest

from coopmap import load_config
from coopmap.config import Config, ConfigError

LAPTOP = "machine=laptop"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=fp8", r"trainer\.precision=fp8: expected one of 32-true, bf16-mixed, 16-mixed"),
        ("trainer.precision=64-true", r"expected one of 32-true"),
        ("trainer.max_epochs=abc", r"trainer\.max_epochs: Value 'abc' of type 'str' could not be converted"),
        ("trainer.max_epochs=0", r"trainer\.max_epochs=0: expected at least 1, or null"),
        ("trainer.max_epochs=-1", r"trainer\.max_epochs and trainer\.max_steps are both without a limit"),
        ("trainer.max_epochs=null", r"trainer\.max_epochs and trainer\.max_steps are both without a limit"),
        ("trainer.max_steps=0", r"trainer\.max_steps=0: expected at least 1, or null"),
        ("trainer.min_steps=-1", r"trainer\.min_steps=-1: expected at least 0, or null"),
        ("trainer.log_every_n_steps=0", r"trainer\.log_every_n_steps=0: expected at least 1, or null"),
        ("trainer.accumulate_grad_batches=0", r"trainer\.accumulate_grad_batches=0: expected at least 1"),
        ("trainer.gradient_clip_val=nan", r"trainer\.gradient_clip_val=nan: expected at least 0"),
        ("trainer.limit_val_batches=1.5", r"trainer\.limit_val_batches=1\.5: expected a number of batches, or their"),
        ("trainer.limit_train_batches=0", r"trainer\.limit_train_batches=0: expected a number of batches"),
        ("trainer.val_check_interval=inf", r"trainer\.val_check_interval=inf: expected a number of batches"),
        ("trainer.val_check_interval=6", r"trainer\.val_check_interval=6: expected at most the 5 batches of an epoch"),
        ("trainer.limit_train_batches=0.1", r"trainer\.limit_train_batches=0\.1: expected a batch of each epoch"),
        ("optim.lr=inf", r"optim\.lr=inf: expected a positive learning rate"),
        ("optim.weight_decay=inf", r"optim\.weight_decay=inf: expected a number of at least 0"),
        ("trainer.deterministic=abc", r"trainer\.deterministic=abc: expected true, false or warn"),
        ("trainer.max_time=2h", r"trainer\.max_time=2h: expected a time, DD:HH:MM:SS, such as 00:11:30:00"),
        ("trainer.max_time=00:00:00:00", r"trainer\.max_time=00:00:00:00: expected a time"),
        ("trainer.devices=abc", r"trainer\.devices=abc: expected auto, their number, or a list of indices"),
        ("trainer.devices=0", r"trainer\.devices=0: expected auto"),
        ("trainer.devices=1.5", r"trainer\.devices=1\.5: expected auto"),
        ("trainer.devices=true", r"trainer\.devices=True: expected auto"),
        ("trainer.devices=[]", r"trainer\.devices=\[\]: expected auto"),
    ],
)
def test_what_no_run_can_have_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config([LAPTOP, "data.steps_per_epoch=5", override])


@pytest.mark.parametrize(
    ("written", "devices"),
    [("null", "auto"), ("auto", "auto"), ("-1", -1), ("'3'", 3), ("'0,2'", [0, 2]), ("'2,'", [2]), ("[1,4]", [1, 4])],
)
def test_devices_have_one_form(written: str, devices: object) -> None:
    assert load_config([LAPTOP, f"trainer.devices={written}"]).trainer.devices == devices


@pytest.mark.parametrize(("short", "precision"), [("32", "32-true"), ("bf16", "bf16-mixed"), ("16", "16-mixed")])
def test_short_names_of_precisions_are_those_of_lightning(short: str, precision: str) -> None:
    assert load_config([LAPTOP, f"trainer.precision={short}"]).trainer.precision == precision


def steps(*overrides: str) -> int:
    config: Config = load_config([LAPTOP, "data.steps_per_epoch=5", *overrides])
    return config.total_steps


def test_the_first_end_of_a_run_is_its_length() -> None:
    assert steps("trainer.max_epochs=3") == 15
    assert steps("trainer.max_epochs=3", "trainer.max_steps=7") == 7
    assert steps("trainer.max_epochs=-1", "trainer.max_steps=70") == 70
    assert steps("trainer.max_epochs=null", "trainer.max_steps=70") == 70
    assert steps("trainer.max_epochs=3", "trainer.limit_train_batches=2") == 6
    accumulating = ("trainer.max_epochs=3", "trainer.accumulate_grad_batches=2")
    assert steps(*accumulating, "trainer.limit_train_batches=0.5") == 9  # 5 of 10 batches, in 3 steps


def test_validation_counts_the_batches_that_are_accumulated() -> None:
    accumulating = load_config(
        [LAPTOP, "data.steps_per_epoch=5", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=10"]
    )
    assert accumulating.trainer.val_check_interval == 10


@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_validation_has_frames(value: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.max_val_frames={value}: expected at least 1, or null: all"):
        load_config([f"data.max_val_frames={value}"])


def test_messages_name_keys() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_agents=2: expected at least data\.min_agents=3$"):
        load_config(["data.min_agents=3", "data.max_agents=2"])
