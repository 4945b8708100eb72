"""What a run needs on each GPU, as ``coopmap plan`` counts it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from coopmap.config import Config
from coopmap.config.plan import PlanConfig
from coopmap.planning.gpus import gpus_for
from coopmap.planning.memory import Counter
from coopmap.planning.samples import examples


def memory_needed(config: Config) -> int:
    """Bytes on each GPU in a step on the micro-batch with the most views, and of several with the most agents."""
    data = config.data
    agents = max(data.agent_frequencies, key=lambda number: (data.max_views_per_gpu // number * number, number))
    asked = PlanConfig()
    with redirect_stderr(io.StringIO()), examples(config, [agents]) as found:  # a small town to count with: no news
        return Counter(found, asked, gpus_for(config, asked).count).memory(config, agents).total
