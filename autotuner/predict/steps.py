"""Seconds of one iteration of an engine, for any mix of prompt chunks and decoding sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotuner.predict.calibration import bundled_calibration
from autotuner.predict.efficiencies import SMOOTH_MAX_POWER, Efficiencies, StepParts, smooth_max, step_parts
from autotuner.predict.hardware import GpuSpec
from autotuner.predict.layout import Layout, resolve_dtypes
from autotuner.predict.operators import Operators
from autotuner.predict.shape import ModelShape


class StepTimes:
    """Times of iterations of one model on `tp` x `pp` GPUs of one type.

    Pipeline stages run one after the other: overlap between batches is not modelled.
    `efficiencies` replace the fitted constants of `engine`.
    """

    def __init__(
        self,
        shape: ModelShape,
        gpu: GpuSpec,
        *,
        tp: int = 1,
        pp: int = 1,
        weight_dtype: str | None = None,
        kv_dtype: str = "bf16",
        cuda_graph: bool = True,
        engine: str = "vllm",
        efficiencies: Efficiencies | None = None,
    ) -> None:
        layout = Layout(tp=tp, pp=pp)
        dtypes = resolve_dtypes(shape, gemm_dtype=weight_dtype, kv_dtype=kv_dtype)
        self._operators = Operators(shape, gpu, layout, dtypes)
        self._efficiencies = efficiencies or bundled_calibration().efficiencies(shape, gpu, layout, dtypes, engine)
        self._cuda_graph = cuda_graph
        self._decode_timers: dict[int, Callable[[int], float]] = {}

    def parts(self, prefill: Sequence[tuple[int, int]], decodes: int = 0, decode_context: int = 0) -> StepParts:
        """Divide one iteration's time by operator.

        `prefill` has (new tokens, tokens already in the cache) for each prompt chunk; `decodes`
        sequences produce one token each and have `decode_context` tokens in the cache, summed over
        the sequences.
        """
        work = self._operators.work(prefill, decodes, decode_context / decodes if decodes else 0.0)
        return step_parts(work, self._efficiencies, eager=bool(prefill) or not self._cuda_graph)

    def step(self, prefill: Sequence[tuple[int, int]], decodes: int = 0, decode_context: int = 0) -> float:
        """Seconds of one iteration; arguments as for `parts`."""
        if prefill:
            return self.parts(prefill, decodes, decode_context).total
        return self.decode_time(decodes)(decode_context)

    def decode_time(self, decodes: int) -> Callable[[int], float]:
        """The seconds of an iteration of `decodes` sequences and no prompt, as a function of their cached tokens."""
        timer = self._decode_timers.get(decodes)
        if timer is None:
            timer = self._decode_timers[decodes] = self._decode_timer(decodes)
        return timer

    def _decode_timer(self, decodes: int) -> Callable[[int], float]:
        """As `decode_time`: (cached tokens in total) -> seconds, with what does not depend on them computed once."""
        # Of a decode iteration only the attention depends on the context.
        other_seconds = step_parts(self._operators.work([], decodes, 0), self._efficiencies, eager=False).total
        efficiencies, attention, power = self._efficiencies, self._operators.decode_attention, 1 / SMOOTH_MAX_POWER
        compute_factor, memory_factor = efficiencies.decode_compute, efficiencies.decode_memory

        def graph_seconds(context: int) -> float:
            compute, memory = attention(decodes, context / decodes if decodes else 0.0)
            return float(
                other_seconds
                + ((compute * compute_factor) ** SMOOTH_MAX_POWER + (memory * memory_factor) ** SMOOTH_MAX_POWER)
                ** power
            )

        def eager_seconds(context: int) -> float:
            busy = graph_seconds(context) - efficiencies.step
            return smooth_max(busy, efficiencies.host) + efficiencies.step

        return graph_seconds if self._cuda_graph else eager_seconds
