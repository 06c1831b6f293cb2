"""vLLM behind the Engine protocol: its AsyncLLM engine and its own OpenAI layer. The only importer of vLLM.

Checked against vLLM 0.32. Importing this module costs about ten seconds; the engine host does it once per node.
"""

import asyncio
import logging
import os
from argparse import Namespace
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import vllm.entrypoints.openai.chat_completion.serving
import vllm.model_executor.models.llama
import vllm.model_executor.models.registry
import vllm.platforms
import vllm.renderers.chat_utils
import vllm.renderers.hf
import vllm.v1.attention.backends.cpu_attn
import vllm.v1.engine.core
import vllm.v1.executor.abstract
import vllm.v1.executor.uniproc_executor
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.requests import Request
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.parser import ParserManager
from vllm.tokenizers.registry import cached_tokenizer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from app.core.errors import BadRequest, InternalError, PlatformError, TooManyRequests, Unavailable
from app.core.reports import EngineStats
from app.core.usage import Tokens
from app.unit.context_length import TooLong
from app.unit.engine import EngineDied, EngineLaunch, Head, Tell
from app.unit.engine_tally import EngineTally
from app.unit.multi_machine import placement_group

log = logging.getLogger(__name__)

_JSON = "application/json"
_SSE = "text/event-stream"
CORE_TIMEOUT_S = 3.0
_TOO_LONG = {"input_text": "messages", "input_tokens": "messages"}
"""vLLM's words for what callers know by another name."""
_making: ContextVar[list[Any]] = ContextVar("_making")
"""What vLLM keeps of each text that it makes for the request of this task; it forgets them when the caller leaves."""
_ERRORS_BY_STATUS: dict[int, type[PlatformError]] = {429: TooManyRequests, 500: InternalError, 503: Unavailable}


def on_cpu() -> bool:
    """Whether this vLLM computes on the CPU."""
    return bool(vllm.platforms.current_platform.is_cpu())


def _load(core: Any) -> tuple[int, int, float]:
    """What the engine core computes, what waits for it, and how full its KV cache is, from 0 to 1.

    Becomes a method of vLLM's core process, which calls it between two steps when asked. vLLM's own statistics would
    cost every step of the engine; this costs nothing until somebody asks.
    """
    running, waiting = core.scheduler.get_request_counts()
    return running, waiting, core.scheduler.get_kv_cache_usage()


vllm.v1.engine.core.EngineCore.modelunit_load = _load  # inherited by the core process, which is forked


_WARMING = "MODELUNIT_WARMING_FILE"
_warm_up = vllm.v1.executor.abstract.Executor.compile_or_warm_up_model


def _warm_up_and_say_so(executor: Any) -> None:
    """What the engine core does last before it serves. Not seen of a core that was spawned instead of forked."""
    Path(os.environ[_WARMING]).touch()
    _warm_up(executor)


vllm.v1.executor.abstract.Executor.compile_or_warm_up_model = _warm_up_and_say_so


class LoneWorker:
    """Mixed into vLLM's worker, inside the engine core."""

    def leave_groups(self) -> None:
        """Give up the process groups of a worker that is alone in all of them.

        vLLM makes a dozen gloo groups even for one worker and never sends through them; each has a thread that wakes
        up a hundred times a second, in the middle of the engine's own computation.
        """
        groups = [group for found in parallel_state._groups.values() if (group := found())]
        if torch.distributed.get_world_size() > 1:
            return
        for group in groups:
            group.cpu_group = group.device_group = None
        torch.distributed.destroy_process_group()


def _load_here(load: Callable[[], Any]) -> Any:
    """What vLLM asks another process for, in this one.

    It looks at a model class that it has not seen on this machine in a process that imports all of vLLM, ten seconds
    long, lest a GPU be touched here. On a CPU nothing is touched.
    """
    return load()


def _tokens_left(limit: int, answer: int | None, prompt: int, *more: Any, **options: Any) -> int:
    """vLLM's own function, which would shorten the answer without a word."""
    if prompt + (answer or 1) > limit:
        raise TooLong(prompt, answer, limit)
    left: int = get_max_tokens(limit, answer, prompt, *more, **options)
    return left


vllm.entrypoints.openai.chat_completion.serving.get_max_tokens = _tokens_left


def _both_names(plain: Callable[[Any, Any], dict[str, Any]]) -> Callable[[Any, Any], dict[str, Any]]:
    """vLLM calls a model's thoughts `reasoning`; Ark's SDK and many others read `reasoning_content` only."""

    def serialize(self: Any, handler: Any) -> dict[str, Any]:
        said = plain(self, handler)
        if said.get("reasoning") is not None:
            said["reasoning_content"] = said["reasoning"]
        return said

    return serialize


for _kind in (ChatMessage, DeltaMessage):
    _serializer = _kind.__pydantic_decorators__.model_serializers["_serialize"]
    _serializer.func = _both_names(_serializer.func)
for _kind in (
    *(ChatMessage, ChatCompletionResponseChoice, ChatCompletionResponse),
    *(DeltaMessage, ChatCompletionResponseStreamChoice, ChatCompletionStreamResponse),
):
    _kind.model_rebuild(force=True)  # each has those before it compiled in


def _fitting_parsers(launch: EngineLaunch, config: Any) -> tuple[str | None, str | None]:
    """The family's parsers of tool calls and of reasoning, less those that do not fit this model's own tokenizer.

    A reasoning parser takes all for thoughts until it reads their end, which a model that never thinks never writes.
    """
    tokenizer = cached_tokenizer_from_config(config.model_config)
    harmony = config.model_config.hf_config.model_type == "gpt_oss"
    thinks = harmony or "think" in str(getattr(tokenizer, "chat_template", None))

    def fitting(name: str | None, kind: str) -> str | None:
        wanted = {f"{kind}_parser_name": name}
        try:
            ParserManager.get_parser(**wanted, enable_auto_tools=True, is_harmony=harmony, tokenizer=tokenizer)
        except TypeError:
            log.warning("the %s parser %s does not fit the model's tokenizer and is left out", kind, name)
            return None
        return name

    return fitting(launch.tool_parser, "tool"), fitting(launch.reasoning_parser, "reasoning") if thinks else None


def without_prompts(record: logging.LogRecord) -> bool:
    """A filter for vLLM's own loggers: a chat template that refuses a request may repeat it in its reason."""
    if record.levelno >= logging.WARNING:
        record.msg, record.args, record.exc_info = str(record.msg).partition("%")[0], (), None
    return True


class VLLMEngine:
    """One AsyncLLM and the chat part of vLLM's OpenAI server on top of it."""

    def __init__(self, engine: AsyncLLM, state: State, endpoint_id: str, cache_salt: str):
        self._engine = engine
        self._chat = state.openai_serving_chat
        self._endpoint_id = endpoint_id
        self._cache_salt = cache_salt or None
        self._tally = EngineTally()
        self._core_tells = True
        # vLLM turns a failure in mid-stream into an error event followed by [DONE], as if the answer were complete.
        # Raising instead leaves it to the router to end the stream without [DONE].
        self._chat.create_streaming_error_response = _reraise
        self._chat._convert_generation_error_to_streaming_response = _reraise
        _note_what_is_made(engine)

    @classmethod
    async def start(cls, launch: EngineLaunch) -> "VLLMEngine":
        """Load the weights and come up ready to serve. Raises whatever vLLM raises."""
        os.environ.update(
            VLLM_ENABLE_V1_MULTIPROCESSING="0",  # no worker process beside the engine core
            VLLM_CPU_OMP_THREADS_BIND="nobind",  # else every engine on the machine picks the same core
            VLLM_NO_USAGE_STATS="1",
            **{_WARMING: str(launch.warming_file)},
        )
        if on_cpu():
            # What vLLM saves of a whole compiled model it cannot load again on CPU; inductor's parts it can.
            os.environ["VLLM_USE_AOT_COMPILE"] = "0"
            vllm.model_executor.models.registry._run_in_subprocess = _load_here
        args = AsyncEngineArgs(
            model=launch.model_dir,
            worker_extension_cls=f"{__name__}.LoneWorker" if on_cpu() else "",
            served_model_name=[launch.endpoint_id],
            max_model_len=launch.max_model_len,
            max_num_seqs=launch.max_num_seqs,
            enable_prefix_caching=launch.prefix_caching,
            enforce_eager=launch.enforce_eager,
            kv_cache_memory_bytes=launch.kv_cache_bytes,
            reasoning_parser=launch.reasoning_parser or "",
            tensor_parallel_size=launch.tensor_parallel_size,
            pipeline_parallel_size=launch.pipeline_parallel_size,
            distributed_executor_backend=launch.executor,
            disable_log_stats=True,
            enable_log_requests=False,
        )
        config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        tool_parser, reasoning_parser = _fitting_parsers(launch, config)
        for settings in (args, config):
            settings.structured_outputs_config.reasoning_parser = reasoning_parser or ""
        if launch.compiled_dir:  # only now, for until here vLLM reads what it knows of all models
            os.environ.update(
                VLLM_CACHE_ROOT=launch.compiled_dir, TORCHINDUCTOR_CACHE_DIR=f"{launch.compiled_dir}/inductor"
            )
        if launch.placement_group:
            config.parallel_config.placement_group = placement_group(launch.placement_group, launch.ranks)
        if on_cpu():
            if launch.threads:
                os.environ["OMP_NUM_THREADS"] = str(launch.threads)  # for threads that OpenMP has yet to see
                torch.set_num_threads(launch.threads)
            # vLLM's CPU platform insists on spawn, which would import everything a second time. This process was
            # forked before any thread or device existed, so forking once more is safe.
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        engine = AsyncLLM.from_vllm_config(config, usage_context=UsageContext.OPENAI_API_SERVER, disable_log_stats=True)
        if on_cpu():
            await engine.collective_rpc("leave_groups")
        for logger in (vllm.renderers.hf.logger, vllm.renderers.chat_utils.logger):
            logger.addFilter(without_prompts)
        state = State()
        tasks = await engine.get_supported_tasks()
        if "generate" not in tasks:
            raise ValueError("this model does not generate text, so it cannot chat")
        front = {
            **vars(FrontendArgs(enable_auto_tool_choice=bool(tool_parser), tool_call_parser=tool_parser)),
            **vars(args),
            "enable_prompt_tokens_details": True,  # as OpenAI tells of them
        }
        await init_app_state(engine, state, Namespace(**front), tasks)
        return cls(engine, state, launch.endpoint_id, launch.cache_salt)

    async def chat(self, body: bytes, request_id: str, tell: Tell) -> AsyncGenerator[Head | bytes, None]:
        """See Engine.chat."""
        answering = self._tally.begin()
        seen = Request({"type": "http", "headers": []})  # vLLM leaves the answer's usage in its state
        making: list[Any] = []
        _making.set(making)
        choices = 1
        try:
            try:
                request = ChatCompletionRequest.model_validate_json(body)
                request.model = self._endpoint_id
                request.request_id = request_id
                request.cache_salt = self._cache_salt  # whatever a caller put there
                choices = request.n or 1
                answer = await self._chat.create_chat_completion(request, seen)
            except TooLong as error:
                newer = request.max_completion_tokens is not None
                raise error.refusal("max_completion_tokens" if newer else "max_tokens") from None
            except EngineDeadError as error:
                raise EngineDied("The engine stopped working.") from error
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                raise BadRequest(str(first["msg"]), ".".join(map(str, first["loc"])) or None) from None
            except Exception as error:
                raise self._refusal(self._chat.create_error_response(error)) from error
            if isinstance(answer, ErrorResponse):
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError  # which vLLM has turned into an answer for nobody
                raise self._refusal(answer)
            if not hasattr(answer, "__aiter__"):
                yield Head(status=200, content_type=_JSON)
                yield answer.model_dump_json().encode()
                return
            try:
                head = True
                async for event in answer:
                    if head:  # only now: a failure before the first token still gets a status of its own
                        head = False
                        self._tally.first_token(answering)
                        read = _tokens(seen, making)
                        yield Head(
                            status=200,
                            content_type=_SSE,
                            prompt_tokens=read.prompt_tokens,
                            cached_tokens=read.cached_tokens,
                        )
                    yield event.encode()
            except EngineDeadError as error:
                raise EngineDied("The engine stopped working.") from error
            finally:
                await answer.aclose()
        finally:
            if making:
                tokens = _tokens(seen, making)
                self._tally.end(answering, tokens, choices)
                tell(tokens)

    def _refusal(self, answer: ErrorResponse) -> PlatformError:
        if self._engine.errored:  # which vLLM may also tell as an ordinary error
            return EngineDied("The engine stopped working.")
        kind = _ERRORS_BY_STATUS.get(answer.error.code, BadRequest)
        if kind is InternalError:
            return InternalError("The engine failed.")
        said, param = answer.error.message.partition(" (parameter=")[0], answer.error.param
        return kind(said, _TOO_LONG.get(param or "", param), "context_length_exceeded" if param in _TOO_LONG else None)

    async def check_health(self) -> None:
        """See Engine.check_health."""
        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            raise EngineDied("The engine core died.") from error

    async def stats(self) -> EngineStats:
        """See Engine.stats."""
        if self._core_tells:
            try:
                async with asyncio.timeout(CORE_TIMEOUT_S):
                    running, waiting, kv_cache = await self._engine.engine_core.call_utility_async("modelunit_load")
                return self._tally.stats(running=running, waiting=waiting, kv_cache_pct=round(kv_cache * 100, 2))
            except TimeoutError:
                pass  # it is in the middle of a long step
            except Exception:
                self._core_tells = False  # it has died, or was spawned instead of forked and has no such method
        states = self._engine.output_processor.request_states.values()
        waiting = sum(state.is_prefilling for state in states)
        return self._tally.stats(running=len(states) - waiting, waiting=waiting, kv_cache_pct=None)

    def close(self) -> None:
        """See Engine.close."""
        self._engine.shutdown(timeout=0)


def _reraise(error: Any, *_: Any, **__: Any) -> str:
    if isinstance(error, EngineDeadError):
        raise EngineDied("The engine stopped working.") from error
    raise InternalError("The engine failed while it answered.") from error


def _note_what_is_made(engine: AsyncLLM) -> None:
    """Have vLLM note in `_making` what it begins to make."""
    known = engine.output_processor
    add = known.add_request

    def add_and_note(request: Any, *rest: Any) -> None:
        add(request, *rest)
        _making.get([]).append(known.request_states[request.request_id])

    known.add_request = add_and_note


def _tokens(seen: Request, making: Sequence[Any]) -> Tokens:
    """What an answer has taken; of one that was broken off, what had been made of it."""
    read = [text for text in making if not text.is_prefilling]
    cached = read[0].num_cached_tokens if read else 0
    if (whole := seen.state.request_metadata.final_usage_info) is not None:
        if whole.prompt_tokens_details is not None:  # of a stream it is told to the caller only
            cached = whole.prompt_tokens_details.cached_tokens or 0
        prompt, completion = whole.prompt_tokens, whole.completion_tokens or 0
    else:
        prompt = max((text.prompt_len for text in read), default=0)
        completion = sum(text.detokenizer.num_output_tokens() for text in read if text.detokenizer)
    return Tokens(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
