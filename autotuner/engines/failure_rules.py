"""The rules that all engines share: words of an error, the kind of failure they mean, and its remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from autotuner.core import FailureKind
from autotuner.engines.protocol import Phase


@dataclass(frozen=True)
class FailureRule:
    """A regular expression, searched in each line of an error, and the failure it means at start-up and under load.

    The rule does not apply in a phase whose kind is None.
    """

    pattern: str
    start_kind: FailureKind | None
    load_kind: FailureKind | None
    remedy: str

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def kind(self, phase: Phase) -> FailureKind | None:
        return self.start_kind if phase == "start" else self.load_kind


LAUNCHER_RULES = (
    FailureRule(
        r"\(OOMKilled\)",
        FailureKind.OUT_OF_MEMORY_AT_START,
        FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
        "Raise runtime.memory or leave the host more memory, or lower what the engine keeps in host memory.",
    ),
    FailureRule(
        r"docker: .*([Nn]o such image|manifest unknown|pull access denied|repository does not exist)",
        FailureKind.IMAGE_MISSING,
        None,
        "Correct runtime.image, or log in to its registry with `docker login`.",
    ),
    FailureRule(
        r"docker: .*(could not select device driver|nvidia-container-cli|unresolvable CDI devices|unknown device)",
        FailureKind.DRIVER_FAULT,
        None,
        "Docker cannot give this container a GPU: install the NVIDIA Container Toolkit, and see `autotune doctor`.",
    ),
)

MACHINE_RULES = (
    FailureRule(
        r"/dev/shm|Bus error.*shared memory|unable to (?:open|allocate) shared memory|shared memory (?:object"
        r"|segment)"
        r"|shm_open|insufficient shared memory",
        FailureKind.DISK_FULL,
        FailureKind.DISK_FULL,
        "The shared memory of the container or host is full: raise runtime.shm_size, such as 16g, or clear /dev/shm.",
    ),
    FailureRule(
        r"No space left on device|\bENOSPC\b|Errno 28\]|Disk quota exceeded|Not enough free disk space",
        FailureKind.DISK_FULL,
        FailureKind.DISK_FULL,
        "The disk is full: free space where the model cache (HF_HOME), the compile caches and TMPDIR are.",
    ),
    FailureRule(
        r"PermissionError: |\[Errno (?:13|30)\]|Read-only file system",
        FailureKind.BROKEN_INSTALLATION,
        FailureKind.BROKEN_INSTALLATION,
        "The engine may not write where it must: give its user the folder that the message names, or set HOME, HF_HOME"
        " and XDG_CACHE_HOME in runtime.env to folders that it may write to.",
    ),
    FailureRule(
        r"^Operation not permitted$|Resource temporarily unavailable|can't start new thread|pthread_create failed"
        r"|\[Errno 24\]|Too many open files",
        FailureKind.BROKEN_INSTALLATION,
        FailureKind.BROKEN_INSTALLATION,
        "The engine may start no more threads or processes, or open no more files: raise `ulimit -u`, `ulimit -n`"
        " and the container's limits, or update Docker, whose old security profiles refuse new system calls.",
    ),
    FailureRule(
        r"no kernel image is available|unsupported toolchain|PTX (?:was compiled|JIT)|invalid PTX|ptxas.*"
        r"(?:not defined|unsupported|is not defined for option)|cudaErrorNoKernelImageForDevice"
        r"|cudaErrorUnsupportedPtxVersion|is not compatible with the current PyTorch installation",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "The engine was not built for this GPU or this driver: update the driver, or use a build or image of the"
        " engine for this GPU's compute capability.",
    ),
    FailureRule(
        r"[Ff]ailed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler|fatal error: Python\.h"
        r"|Could not find nvcc|CUDA_HOME (?:environment variable )?is not set|nvcc: not found|[Nn]inja is required"
        r"|command '?(?:gcc|g\+\+|cc|nvcc|\S*/gcc)'? failed|No such file or directory: '(?:\S*/)?(?:gcc|g\+\+"
        r"|cc|ninja|nvcc)'"
        r"|gcc.*: (?:not found|No such file)|CalledProcessError: Command '\['?(?:\S*/)?(?:gcc|cc|g\+\+|ninja|nvcc)",
        FailureKind.BROKEN_INSTALLATION,
        FailureKind.BROKEN_INSTALLATION,
        "The engine compiles kernels as it starts: install gcc, the Python headers and, where it asks for nvcc, the"
        " CUDA toolkit (export CC and CUDA_HOME), or use the engine's image.",
    ),
    FailureRule(
        r"libcuda\.so\.1: cannot open|Found no NVIDIA driver|NVIDIA driver on your system is too old"
        r"|CUDA driver version is insufficient|No CUDA GPUs are available|no CUDA-capable device"
        r"|Failed to infer device type|system not yet initialized|uncorrectable ECC error|GPU is lost"
        r"|fallen off the bus|[Dd]river/library version mismatch|No accelerator"
        r"|[Nn]o (?:CUDA )?GPU(?:s)? (?:is |are )?"
        r"(?:found|detected|available)|invalid device ordinal|CUDA is not available|not compiled with CUDA enabled"
        r"|cudaErrorInsufficientDriver|cudaErrorNoDevice|cudaErrorSystemNotReady|NVML (?:Shared Library )?"
        r"(?:Not Found|not found)|Failed to initialize NVML|NVMLError|CUDA_ERROR_(?:NO_DEVICE|SYSTEM)"
        r"|forward compatibility"
        r"|an illegal memory access|CUDA error: (?:unknown error|unspecified launch failure"
        r"|all CUDA-capable devices are)|undefined symbol: cu[A-Z]\w+",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "See `nvidia-smi` and `dmesg`: update the driver for this engine's CUDA version, give the server its GPUs, or"
        " reset the GPU.",
    ),
    FailureRule(
        r"cannot open shared object file|version `?(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+'? not found"
        r"|undefined symbol:|_OpNamespace.*has no attribute"
        r"|Numpy is not available|No module named |cannot import name|libcudart|wrong ELF class"
        r"|partially initialized module",
        FailureKind.BROKEN_INSTALLATION,
        FailureKind.BROKEN_INSTALLATION,
        "The engine's installation does not fit this machine: install it anew with the PyTorch and CUDA version that"
        " it was built for, on a system with its glibc, or use its image.",
    ),
)

MEMORY_RULES = (
    FailureRule(
        r"memory capacity is unbalanced|[Mm]emory is (?:un|im)balanced|Some GPUs may be occupied"
        r"|is less than desired (?:GPU|CPU|device) memory utilization|Error in memory profiling"
        r"|[Ii]nitial free memory .* current free memory",
        FailureKind.OUT_OF_MEMORY_AT_START,
        None,
        "Something else holds this memory: lower mem-fraction-static or free the device, which `nvidia-smi` shows.",
    ),
    FailureRule(
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation"
        r"|\bMemoryError\b|std::bad_alloc|DefaultCPUAllocator: can't allocate|Out of memory:|Cannot allocate memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED|CUDA_ERROR_OUT_OF_MEMORY|out of memory\b",
        FailureKind.OUT_OF_MEMORY_AT_START,
        FailureKind.OUT_OF_MEMORY_UNDER_LOAD,
        "Lower mem-fraction-static, max-running-requests or max-batched-tokens, or spread over more GPUs with tp-size.",
    ),
)

MODEL_RULES = (
    FailureRule(
        r"rope_(?:scaling|type|parameters)|RoPE scaling type",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "The engine or its Transformers does not know this model's position embedding: use a newer version of both, or"
        " correct rope_scaling in config.json.",
    ),
    FailureRule(
        r"Consistency check failed: file should be of size",
        FailureKind.MODEL_NOT_FOUND,
        None,
        "A file of the model was not downloaded whole: download it again, with enough disk space and a steady network.",
    ),
    FailureRule(
        r"CAS service error|ReqwestMiddleware|Request failed after \d+ retries",
        FailureKind.CRASHED_AT_START,
        None,
        "The Hugging Face hub did not answer: check the network and its proxy, or download the model first and set"
        " HF_HUB_OFFLINE=1 in runtime.env.",
    ),
    FailureRule(
        r"trust[_-]remote[_-]code|contains custom code which must be executed",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "The model comes with code of its own: read it, and allow it with --trust-remote-code in runtime.extra_args.",
    ),
    FailureRule(
        r"(?i)you are trying to access a gated repo|GatedRepoError|cannot access gated repo"
        r"|awaiting a review from the"
        r" repo authors|access to model \S+ is restricted|must (?:have access to it|be authenticated) (?:to|and)"
        r"|accept (?:the|its) (?:license|terms|conditions)|not in the authorized list",
        FailureKind.GATED_MODEL,
        None,
        "Ask for access and accept the licence on the model's page, and export HF_TOKEN before running autotune.",
    ),
    FailureRule(
        r"HTTP (?:Error )?(?:429|5\d\d)|(?:429|5\d\d) (?:Client|Server) Error|Too Many Requests|Read timed out"
        r"|ReadTimeout|Max retries exceeded|Temporary failure in name resolution"
        r"|couldn't connect to 'https?://|while trying to locate the files on the Hub|Name or service not known"
        r"|Connection (?:refused|timed out|aborted).*(?:hugging|hub|http)",
        FailureKind.CRASHED_AT_START,
        None,
        "The Hugging Face hub did not answer: check the network and its proxy, or download the model first and set"
        " HF_HUB_OFFLINE=1 in runtime.env.",
    ),
    FailureRule(
        r"Can't load tokenizer|instantiate the backend tokenizer|Tokenizer class .* does not exist"
        r"|tokenizer .*not supported|not a string|(?i:failed to load (?:the )?tokenizer)|sentencepiece|tiktoken"
        r"|Error parsing line .*tokenizer|data did not match any variant of untagged enum|ModelWrapper"
        r"|has no attribute 'all_special_tokens_extended'|Can't find a vocabulary file",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "The tokenizer cannot be loaded: give another as model.tokenizer, complete the model's folder, or use the"
        " Transformers version that the model was saved with.",
    ),
    FailureRule(
        r"Repository Not Found for url|(?i:404 Client Error.*(?:hugging|hub|models))",
        FailureKind.MODEL_NOT_FOUND,
        None,
        "Check the spelling of the model's name; a private model needs HF_TOKEN.",
    ),
    FailureRule(
        r"is not a local folder and is not a valid model identifier|Repo id must (be in the form|use alphanumeric)"
        r"|RepositoryNotFoundError|does not appear to have a file named|does not appear to have files named"
        r"|is not a valid git identifier|LocalEntryNotFoundError"
        r"|Cannot find the requested files in the (local|disk) cache|Cannot load model|Cannot find any model weights"
        r"|Invalid repository ID or local directory|RevisionNotFoundError|Revision Not Found|Entry Not Found for url"
        r"|[Mm]odel path .* does not exist|No safetensors weights found|Cannot find any of .*weights",
        FailureKind.MODEL_NOT_FOUND,
        None,
        "Check the model's name or folder, and, for a model on the Hugging Face hub, the network and its access.",
    ),
    FailureRule(
        r"weight quantization block_[nk]|quantization block.*(?:not divisible|divisible by)"
        r"|not divisible by .*(?:block_n|block_k|block size|group_size|group size)"
        r"|not aligned with the quantized weight"
        r"|min_thread_[nk]",
        FailureKind.NOT_DIVISIBLE,
        None,
        "The blocks of the quantised weights cannot be split over this many GPUs: lower tp-size, or spread experts"
        " with ep-size.",
    ),
    FailureRule(
        r"(?i)heads.*\b(must be|not|is not|are not) divisible by|heads .*do not divide one another"
        r"|\bis not divisible by\b|assert \(?[\w.]+ % [\w.]*(?:tp|ep|pp|size|world|rank|shard|partition)\w*\)? == 0"
        r"|assert [\w.]*heads\w* % [\w.]+ == 0"
        r"|must be divisible by (?:tensor|tp|the number of (?:gpu|shard|partition))|(?:not"
        r"|be) divisible by (?:tp|tensor)"
        r"|must be divisible by pipeline|divisible by world[_ ]size",
        FailureKind.NOT_DIVISIBLE,
        None,
        "Choose a tp-size that divides the model's number of attention heads and its layers' sizes.",
    ),
    FailureRule(
        r"[Hh]ead[_ ](?:size|dim)\w*\b.*(?:not supported|unsupported|is not in|must be)|(?:not support"
        r"|[Uu]nsupported)\w*"
        r" [Hh]ead[_ ]?(?:size|dim)|[Ss]upported head (?:size|dim)",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "The attention backend has no kernel for this model's head size: choose another one, with attention-backend"
        " in the parameters, or another engine.",
    ),
    FailureRule(
        r"(?i)(?:attention )?backend \S+ (?:is not (?:valid|supported|available)|does not support)"
        r"|no valid attention backend|(?:not supported|unsupported).*attention[_ ]backend"
        r"|attention[_ ]backend.*(?:not supported|unsupported|not valid|requires|invalid)"
        r"|(?:flash ?attention|flashattention|fa3|flashinfer|flashmla|trtllm_mha).*(?:only support"
        r"|not support|requires|is only)",
        FailureKind.BAD_FLAG,
        None,
        "Choose another attention-backend in the parameters, or leave it to the engine.",
    ),
    FailureRule(
        r"[Qq]uantization method .*not supported|[Mm]inimum capability|[Cc]ompute capability"
        r"|requires? (?:a )?GPUs? with"
        r"|[Uu]nsupported quantization|not supported on (?:this|the current) (?:GPU|device|platform)"
        r"|is not supported (?:for|on) (?:the current GPU|sm_?\d+|SM ?\d+)|type fp8e4nv not supported"
        r"|[Uu]nknown quantization method|Quantization .*(?:not supported|does not support)|[Nn]o kernel found for"
        r"|Failed to find a kernel|fp8 .*(?:only supported|requires)",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "This GPU or engine cannot compute this model's number format: use a checkpoint in another format or another"
        " dtype, such as half in place of bfloat16, or a newer GPU.",
    ),
    FailureRule(
        r"Model architectures .* are not supported|No model architectures are specified|Unrecognized model in "
        r"|does not recognize this architecture|[Mm]odel architecture.*(?:not supported|unsupported)"
        r"|Unsupported (?:model )?architectures?: |Unknown architecture|Unrecognized configuration class"
        r"|has no (?:SGLang|vLLM|Transformers) implementation|Cannot find model module|KeyError: '\w+\.\w+.*weight"
        r"|not supported with \['\w+'\]|There is no module or parameter named"
        r"|model type `.*` but|not supported by (?:vLLM|SGLang|TensorRT)",
        FailureKind.UNSUPPORTED_MODEL,
        None,
        "Use an engine version that knows this model, or another runtime.",
    ),
)

FLAG_RULES = (
    FailureRule(
        r"error: (unrecognized arguments|argument |the following arguments are required|ambiguous option)"
        r"|No such option|Error: (?:Invalid value|Got unexpected extra argument|Missing (?:argument|option"
        r"|parameter))"
        r"|Extra inputs are not permitted|^(?:[\w./ -]+: )?error: invalid ",
        FailureKind.BAD_FLAG,
        None,
        "Correct the flag in the parameters or in runtime.extra_args; `--help` of the engine lists what it takes.",
    ),
    FailureRule(
        r"max_model_len \(?[\d.]+\)? is greater than|context_length \(?\d+\)? is greater than the derived"
        r"|max_seq_len.*(?:exceeds|greater than|larger than).*max_position"
        r"|is greater than the derived (?:max_model_len|"
        r"context_length)|max_seq_len .* exceeds",
        FailureKind.BAD_FLAG,
        None,
        "Lower max-model-len to what the model was trained for; its config.json has max_position_embeddings.",
    ),
    FailureRule(
        r"max_num_batched_tokens \(?\d+\)? (?:is smaller than|must be greater)"
        r"|max_num_batched_tokens.*(?:smaller|less)"
        r" than|max_num_tokens.*(?:smaller|less) than",
        FailureKind.BAD_FLAG,
        None,
        "Raise max-batched-tokens to at least max-model-len, lower max-model-len, or enable-chunked-prefill.",
    ),
    FailureRule(
        r"[Ww]orld[ _]size .*(?:larger|greater) than the number of available|required GPUs exceeds|tp_size .* exceeds"
        r"|(?:parallel_size|parallel size).*(?:exceeds|(?:larger|greater) than)",
        FailureKind.BAD_FLAG,
        None,
        "Lower tp-size, pp-size or dp-size: this machine has fewer GPUs than they ask for.",
    ),
    FailureRule(
        r"does not match the quantization method|Cannot find the config file for"
        r"|is not supported for quantization method"
        r"|[Pp]arallel\w* (?:is )?not supported|does not support (?:pipeline|tensor|expert|data) parallel"
        r"|Hybrid KV cache manager is disabled but"
        r"|(?i:(?:speculative decoding|prefix caching|chunked prefill|lora|cuda graph|torch\.compile|async scheduling"
        r"|structured outputs?|kv[- ]cache offload\w*|overlap schedule)\b.*(?:not (?:yet )?(?:be )?(?:supported"
        r"|compatible|used)|incompatible|n't support))",
        FailureKind.BAD_FLAG,
        None,
        "The engine refuses this value for this model: change the parameter that its message names, or leave it out.",
    ),
    FailureRule(
        r"(?i)chat[ _-]template.*(?:does(?: not|n't) exist|path-like|no such file|is not (?:found|a valid)"
        r"|invalid|failed)"
        r"|(?:invalid|failed to load|could not load|cannot load).*chat[ _-]template",
        FailureKind.BAD_FLAG,
        None,
        "Correct the path of --chat-template in runtime.extra_args; in a container the file must be in a mount.",
    ),
)

COMMUNICATION_RULES = (
    FailureRule(
        r"(?i)address already in use|port is already allocated|only one usage of each socket address|\bEADDRINUSE\b"
        r"|port \d+ is (?:not available|already in use|in use|occupied)|error while attempting to bind on address",
        FailureKind.PORT_IN_USE,
        None,
        "Another process listens on this port; run again to have another free one chosen.",
    ),
    FailureRule(
        r"\bnccl(System|UnhandledCuda|Internal|Remote|InvalidUsage)Error|NCCL (error|failure)|DistBackendError"
        r"|ProcessGroupNCCL.*(timeout|timed out)|Watchdog caught collective operation timeout",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "The GPUs could not talk to one another: give the container shared memory, see `nvidia-smi topo -m`, and run"
        " with NCCL_DEBUG=INFO in runtime.env.",
    ),
    FailureRule(
        r"device-side assert|Assertion error \(|Assertion `.*` failed|Assertion failed: ",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "A kernel of the engine stopped itself: it may not be made for this GPU, or was given what it cannot take. Try"
        " another attention-backend or version of the engine, and CUDA_LAUNCH_BLOCKING=1 in runtime.env to name it.",
    ),
    FailureRule(
        r"Cannot re-initialize CUDA in forked subprocess",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "The engine's processes were forked after it had used the GPU: set VLLM_WORKER_MULTIPROC_METHOD=spawn in"
        " runtime.env, or leave out what loads the GPU before.",
    ),
    FailureRule(
        r"\[Errno (?:5|70|107|116|121)\]|Stale file handle|Input/output error",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "A file could not be read, since its disk or network file system failed: see `dmesg`, mount it anew, or copy"
        " the model to a local disk.",
    ),
    FailureRule(
        r"RPC call to \w+ timed out",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "A step took longer than the engine waits for its workers: raise VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS in"
        " runtime.env if it is slow, or look for what a worker waits for in the log.",
    ),
    FailureRule(
        r"when stream is capturing|(?:previous error during|invalidated by the) capture|cudaErrorStreamCapture",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "The engine could not record its CUDA graphs: turn off what was added to its steps, such as torch.compile, or"
        " set cuda-graph to false in the parameters.",
    ),
    FailureRule(
        r"CUDA error: |CUDA driver error|\bcudaError[A-Z]|AcceleratorError|CU(?:BLAS|DNN|SPARSE|SOLVER)_STATUS_"
        r"|HIP error: ",
        FailureKind.DRIVER_FAULT,
        FailureKind.DRIVER_FAULT,
        "A call of the GPU's driver failed: see `nvidia-smi` and `dmesg`, update the driver for this engine's CUDA"
        " version, and run with CUDA_LAUNCH_BLOCKING=1 in runtime.env to name the call.",
    ),
    FailureRule(
        r"died unexpectedly|EngineDeadError|[Ee]ngine(?:Core)? (?:is|process) dead|AsyncEngineDeadError"
        r"|terminated with -?\d+|terminated by signal|output_handler failed|scheduler (?:is dead|died)"
        r"|crashed with exit code|Failed core proc\(s\): \{.*: -\d+",
        FailureKind.CRASHED_AT_START,
        FailureKind.CRASHED_UNDER_LOAD,
        "A process of the engine ended without a word, as one does that the kernel kills when host memory runs out:"
        " see `dmesg`, and leave the host more memory or lower what the engine keeps there.",
    ),
)

COMMON_RULES = (
    *LAUNCHER_RULES,
    *MACHINE_RULES,
    *MEMORY_RULES,
    *FLAG_RULES,
    *MODEL_RULES,
    *COMMUNICATION_RULES,
)
