"""Rules by the place that raised an exception: what a failure there means, where no rule knows its words.

Engines change the words of their errors with every version, and hardly ever the files that raise them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from autotuner.core import FailureKind
from autotuner.engines.protocol import Phase


class Frame(NamedTuple):
    """A frame of a traceback: the path of its file and the name of its function."""

    path: str
    function: str


ENGINE_FILE = re.compile(r"(?:^|/)(?:vllm|sglang|tensorrt_llm)/")
"""Matches the paths of an engine's own files."""

STANDARD_LIBRARY = re.compile(r"^<frozen|/lib(?:64)?/python3\.\d+/(?!(?:site|dist)-packages/)")
COMPILED_FILE = re.compile(r"torch_compile_cache|inductor_cache|torchinductor_")
"""Matches the paths of modules that torch.compile writes and runs."""

ENTRY_FILE = re.compile(r"^<frozen|(?:^|/)runpy\.py$")


@dataclass(frozen=True)
class OriginRule:
    """A failure kind for exceptions whose type and words, file and function match.

    `path` and `function` are searched in the innermost frame, the innermost outside Python's own library, and the
    innermost `depth` of the engine's own files.
    """

    path: str
    kind: FailureKind
    remedy: str
    function: str = ""
    exception: str = ""
    under_load: FailureKind | None = None
    depth: int = 1

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        return re.compile(self.path), re.compile(self.function), re.compile(self.exception)

    def matches(self, exception: str, frames: Sequence[Frame]) -> bool:
        """Whether the rule applies to an exception, its type and first line, raised at the last of `frames`."""
        path, function, words = self._patterns
        engine_frames = [frame for frame in frames if ENGINE_FILE.search(frame.path)]
        library_frames = [frame for frame in frames if not STANDARD_LIBRARY.search(frame.path)]
        places = {*frames[-1:], *library_frames[-1:], *engine_frames[-self.depth :]}
        return bool(words.search(exception)) and any(
            path.search(place.path) and function.search(place.function) for place in places
        )

    def kind_in(self, phase: Phase) -> FailureKind | None:
        return self.kind if phase == "start" else self.under_load


MISMATCH_REMEDY = (
    "Two packages of the engine's installation do not fit one another: install the engine anew in an empty"
    " environment, with the versions it asks for, or use its image."
)
COMPILE_REMEDY = (
    "The engine compiles kernels as it starts, and that failed: the log has the compiler's words. Install the"
    " compiler and CUDA toolkit that fit its PyTorch, empty the cache of compiled kernels, or use its image."
)
CONFIG_REMEDY = (
    "The engine or its Transformers cannot read this model's configuration: use an engine version that knows the"
    " model, or the Transformers version that the model was saved with."
)
WEIGHTS_REMEDY = (
    "The checkpoint's weights are not what this engine version expects of the model: use a version that knows this"
    " model and its quantisation, or another checkpoint."
)
FLAG_REMEDY = "The engine refuses this combination of values: change the parameter that its message is about."
TOKENIZER_REMEDY = (
    "The tokenizer or processor cannot be loaded: give another as model.tokenizer, complete the model's folder, or"
    " use the Transformers version that the model was saved with."
)
DAMAGED_REMEDY = (
    "A file of the model is damaged or incomplete: compare its size with the published one, and download it again"
    " (files of about 130 bytes are pointers of Git LFS)."
)
FORMAT_REMEDY = (
    "The engine has no kernel for this model's layers or number format on this GPU: use another checkpoint, dtype,"
    " attention-backend or engine version, or a newer GPU."
)
COMMUNICATION_REMEDY = (
    "The GPUs could not talk to one another: give the container shared memory, see `nvidia-smi topo -m`, and run"
    " with NCCL_DEBUG=INFO in runtime.env."
)
RAY_REMEDY = (
    "Ray has no GPUs for the engine where it needs them: see `ray status`, and start Ray on the nodes with GPUs."
)
GRAPH_REMEDY = (
    "The model could not be compiled: set cuda-graph to false in the parameters, empty the engine's cache of compiled"
    " models, or use another version of the engine."
)
MEMORY_REMEDY = (
    "Too little memory is left for the KV cache: raise mem-fraction-static, lower max-model-len, or spread over more"
    " GPUs with tp-size."
)
DEVICE_REMEDY = "See `nvidia-smi` and `dmesg`: update the driver, give the server its GPUs, or reset the GPU."

SIGNATURE = (
    r"^TypeError: .*(?:unexpected keyword argument|got multiple values for argument|required positional argument"
    r"|required keyword-only argument|positional arguments? but)"
)
"""Words of a call that does not fit the function it calls."""

ORDINARY = r"^(?!OSError|AttributeError|FileNotFoundError)"
"""Types of exceptions with which a check of values ends."""

PYTHON_RULES = (
    # what Python itself says, wherever it was raised
    OriginRule("", FailureKind.BROKEN_INSTALLATION, MISMATCH_REMEDY, exception=r"^(?:ImportError|ModuleNotFoundError)"),
    OriginRule("", FailureKind.UNSUPPORTED_MODEL, CONFIG_REMEDY, exception=r"'\w+Config' object has no attribute"),
    OriginRule("", FailureKind.BROKEN_INSTALLATION, MISMATCH_REMEDY, exception=SIGNATURE),
    OriginRule(
        "",
        FailureKind.BROKEN_INSTALLATION,
        MISMATCH_REMEDY,
        exception=r"^AttributeError: (?:partially initialized )?module '|^AttributeError: type object '",
    ),
    OriginRule(
        "",
        FailureKind.BROKEN_INSTALLATION,
        "The engine lacks a package: install what its message names into its environment, or use its image.",
        exception=r"(?i)please (?:re)?install|(?:try|via|run) `?pip install|(?:is|are) not installed|to be installed",
    ),
)

IMPORT_RULE = OriginRule("", FailureKind.BROKEN_INSTALLATION, MISMATCH_REMEDY)
"""The rule for any exception that is raised while a module is imported."""

PLACE_RULES = (
    # compilers of kernels, and recorders of graphs
    OriginRule(
        r"flashinfer/jit/|/cpp_extension\.py$|/cpp_builder\.py$|triton/runtime/build\.py$|deep_gemm/jit/"
        r"|tilelang/|tvm_ffi/",
        FailureKind.BROKEN_INSTALLATION,
        COMPILE_REMEDY,
        under_load=FailureKind.BROKEN_INSTALLATION,
    ),
    OriginRule(r"(?:^|/)triton/", FailureKind.UNSUPPORTED_MODEL, FORMAT_REMEDY),
    OriginRule(r"torch/_(?:inductor|dynamo|functorch)/|vllm/compilation/", FailureKind.CRASHED_AT_START, GRAPH_REMEDY),
    # devices and their communication
    OriginRule(
        r"distributed/(?:parallel_state|device_communicators/)|torch/distributed/|pynccl|custom_all_reduce"
        r"|(?:^|/)(?:nixl|mooncake|ucp)/",
        FailureKind.DRIVER_FAULT,
        COMMUNICATION_REMEDY,
        exception=r"^(?!ValueError|TypeError|AssertionError|KeyError)",
        under_load=FailureKind.DRIVER_FAULT,
        depth=3,
    ),
    OriginRule(r"executor/ray_|executor/ray/|(?:^|/)ray/", FailureKind.DRIVER_FAULT, RAY_REMEDY),
    OriginRule(
        r"utils/(?:flashinfer|import_utils|deep_gemm)\.py$|rust_extensions/|hardware_backend/",
        FailureKind.BROKEN_INSTALLATION,
        MISMATCH_REMEDY,
    ),
    OriginRule(
        r"numa_utils|/eplb/|eplb_|/envs\.py$|/environ\.py$", FailureKind.BAD_FLAG, FLAG_REMEDY, exception=ORDINARY
    ),
    OriginRule(r"vllm/platforms/interface\.py$", FailureKind.BROKEN_INSTALLATION, MISMATCH_REMEDY),
    OriginRule(r"torch/cuda/|vllm/platforms/|pynvml", FailureKind.DRIVER_FAULT, DEVICE_REMEDY),
    OriginRule(r"worker\.py$", FailureKind.DRIVER_FAULT, DEVICE_REMEDY, function="init_device"),
    # settings of parts that a user turns on
    OriginRule(
        r"(?:kv|ec|weight)_transfer/|kv_connector|kv_offload/|srt/disaggregation/|cache_controller|(?:^|/)lmcache/",
        FailureKind.BAD_FLAG,
        "The settings of KV transfer do not fit the engine: correct the connector and its version in them.",
    ),
    OriginRule(
        r"(?:vllm|srt|tensorrt_llm)/lora/|/peft_helper\.py$",
        FailureKind.BAD_FLAG,
        "The adapter does not fit the engine's settings: change those, such as --max-lora-rank, or leave it out.",
        exception=ORDINARY,
    ),
    OriginRule(r"spec_decode/|speculative", FailureKind.BAD_FLAG, FLAG_REMEDY, exception=ORDINARY),
    OriginRule(
        r"spec_decode/|speculative",
        FailureKind.BAD_FLAG,
        "The draft model does not fit the engine's method of speculative decoding: give one that was made for it.",
        exception=r"'\w+For\w+' object has no attribute",
    ),
    OriginRule(
        r"tool_parsers/|function_call/|reasoning/|reasoning_parser|entrypoints/(?:openai|cli|launcher|chat_utils)",
        FailureKind.BAD_FLAG,
        FLAG_REMEDY,
        exception=r"^(?:ValueError|TypeError|KeyError|AssertionError|FileNotFoundError)",
    ),
    # files of the model
    OriginRule(r"vllm/config|srt/configs", FailureKind.UNSUPPORTED_MODEL, CONFIG_REMEDY, exception=r"^KeyError"),
    OriginRule(
        r"vllm/inputs/|multimodal/(?:profiling|budget)",
        FailureKind.BAD_FLAG,
        "An image or video may take more tokens than the engine plans for: raise max-model-len and max-batched-tokens,"
        " or lower --limit-mm-per-prompt.",
        exception=r"^(?:AssertionError|ValueError)",
    ),
    OriginRule(r"safetensors/|torch/serialization\.py$|zipfile\.py$", FailureKind.MODEL_NOT_FOUND, DAMAGED_REMEDY),
    OriginRule(
        "",
        FailureKind.MODEL_NOT_FOUND,
        DAMAGED_REMEDY,
        exception=r"SafetensorError|UnpicklingError|HeaderTooLarge|MetadataIncompleteBuffer",
    ),
    OriginRule(
        r"transformers/|huggingface_hub/|tokenizers/|configs?[/_]",
        FailureKind.MODEL_NOT_FOUND,
        DAMAGED_REMEDY,
        exception=r"JSONDecodeError",
    ),
    OriginRule(
        r"tokeniz|processing_(?:utils|auto)\.py$|image_processing|multimodal/|/processors?(?:/|\.py$)|sentencepiece"
        r"|structured_output|xgrammar|outlines|constrained/|chat_template|template_manager|jinja2/|tensorrt_llm/inputs/"
        r"|vllm/renderers/|multimodal_processor",
        FailureKind.UNSUPPORTED_MODEL,
        TOKENIZER_REMEDY,
    ),
    OriginRule(
        r"configuration_\w+\.py$|modeling_rope_utils|transformers_utils/(?:config|configs/)|sglang/srt/configs/"
        r"|config/model(?:_arch)?\.py$|transformers_modules/|rotary_embedding|huggingface_hub/dataclasses\.py$"
        r"|modeling_gguf|gguf/|_torch/model_config\.py$|/modeling_auto\.py$|models/registry\.py$",
        FailureKind.UNSUPPORTED_MODEL,
        CONFIG_REMEDY,
    ),
    OriginRule(
        "",
        FailureKind.UNSUPPORTED_MODEL,
        WEIGHTS_REMEDY,
        function=r"load_\w*weight|weights?_\w*load|_load_(?:module|param|w13|w2)|process_weights_after_loading"
        r"|create_weights|load_param|weights_iterator",
        exception=r"^(?!OSError|FileNotFoundError)",
    ),
    # memory
    OriginRule(
        r"kv_cache_utils\.py$|mem_cache/|pool_configurator|resource_manager\.py$|model_runner_kv_cache",
        FailureKind.OUT_OF_MEMORY_AT_START,
        MEMORY_REMEDY,
        exception=r"^(?:ValueError|RuntimeError): .*(?:[Mm]emory|blocks|larger|enough|[Ii]nsufficient|capacity)",
    ),
    OriginRule(
        "", FailureKind.OUT_OF_MEMORY_AT_START, MEMORY_REMEDY, function="init_memory_pool|profile_max_num_token"
    ),
    # kernels and layers
    OriginRule(
        "",
        FailureKind.BAD_FLAG,
        "Choose another attention-backend in the parameters, or leave it to the engine.",
        function=r"(?:init|get|create)_attention_backend|get_attn_backend",
    ),
    OriginRule(
        r"_custom_ops\.py$|sgl_kernel/|deep_gemm|vllm_flash_attn|flash_attn|flashinfer/|layers/quantization/|quantization/"
        r"|tensorrt_llm/_torch/custom_ops/",
        FailureKind.UNSUPPORTED_MODEL,
        FORMAT_REMEDY,
        exception=r"^(?!AttributeError)",
    ),
    OriginRule(
        r"/models/(?!auto/).*\.py$|/model\.py$|_torch/models/",
        FailureKind.UNSUPPORTED_MODEL,
        WEIGHTS_REMEDY,
        "__init__",
    ),
    OriginRule(
        r"model_loader/|layers/|attention/|_torch/(?:modules|attention_backend)/",
        FailureKind.UNSUPPORTED_MODEL,
        FORMAT_REMEDY,
        exception=r"^(?:ValueError|NotImplementedError|AssertionError|RuntimeError: .*support)",
    ),
    # checks of values
    OriginRule(
        r"vllm/config|engine/arg_utils\.py$|server_args\.py$|arg_groups/|llm_args\.py$|argparse\w*\.py$|commands/serve\.py$"
        r"|cli_args|cudagraph_dispatcher",
        FailureKind.BAD_FLAG,
        FLAG_REMEDY,
        exception=r"^(?!OSError|AttributeError)",
    ),
    OriginRule(
        r"transformers/|huggingface_hub/|transformers_utils/",
        FailureKind.MODEL_NOT_FOUND,
        "A file of the model is missing: complete its folder, or check its name and revision.",
        exception=r"^FileNotFoundError",
    ),
)


WORD_RULES = (
    # what a message asks for, where its place says nothing
    OriginRule("", FailureKind.BAD_FLAG, FLAG_REMEDY, exception=r"(?<![\w-])--[a-z][a-z0-9]*(?:[-_][a-z0-9]+)+"),
    OriginRule(
        "",
        FailureKind.UNSUPPORTED_MODEL,
        FORMAT_REMEDY,
        exception=r"^NotImplementedError: ?.+|^(?:Value|Runtime|Assertion)Error: .*(?:not|n't|un)[ -]?support",
    ),
)


def origin_rule(exception: str, frames: Sequence[Frame], phase: Phase) -> OriginRule | None:
    """The rule for an exception, given as its type and first line, that was raised at the last of `frames`."""
    if not frames:
        return None
    while_importing = (IMPORT_RULE,) if is_import(frames) else ()
    rules = (*PYTHON_RULES, *while_importing, *PLACE_RULES, *WORD_RULES)
    return next((rule for rule in rules if rule.kind_in(phase) and rule.matches(exception, frames)), None)


def is_import(frames: Sequence[Frame]) -> bool:
    """Whether a module other than the program itself was being imported."""
    own = [frame for frame in frames if not ENTRY_FILE.search(frame.path)]
    return any(frame.function == "<module>" and not COMPILED_FILE.search(frame.path) for frame in own[1:])
