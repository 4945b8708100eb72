"""Configuration of how several processes train one model (group ``strategy``)."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import require, require_choice

STRATEGIES = ("auto", "single", "ddp", "ddp_zero1", "fsdp")


@dataclass
class StrategyConfig:
    """How several processes train one model (docs/strategies.md).

    Attributes:
        name: ``single`` (one process), ``ddp`` (each holds everything, gradients are averaged), ``ddp_zero1``
            (likewise, but each keeps the optimizer's state of its share of the parameters alone), ``fsdp`` (each keeps
            its share of parameters, gradients and optimizer state), or ``auto``: ``ddp`` if there are several
            processes. With one process they are all the same.
        bucket_mb: MiB of gradients that are averaged together (``ddp``, ``ddp_zero1``): as the backward pass fills a
            bucket, it is sent.
        static_graph: tell DDP that the same parameters get gradients in every step, so that it need not look
            (``ddp``, ``ddp_zero1``); has no effect with gradient accumulation, whose first batch it would take for the
            whole.
        compress_gradients: on GPUs send gradients in bfloat16: half the traffic, sums of 8 significant bits (``ddp``,
            ``ddp_zero1``).
    """

    name: str = "auto"
    bucket_mb: float = 25.0
    static_graph: bool = True
    compress_gradients: bool = False

    def __post_init__(self) -> None:
        require_choice("strategy.name", self.name, STRATEGIES)
        require(self.bucket_mb > 0, "strategy.bucket_mb", self.bucket_mb, "a size above 0")
        sends_whole = self.name in ("auto", "ddp", "ddp_zero1")
        require(
            sends_whole or not self.compress_gradients,
            "strategy.compress_gradients",
            self.compress_gradients,
            f"false with strategy={self.name}: ddp and ddp_zero1 average whole gradients",
        )
