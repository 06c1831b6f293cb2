"""Whether a folder's tokenizer loads, fits the embedding and has a chat template that works. All in the sandbox."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from app.core.findings import Finding, finding
from app.weights import sandbox
from app.weights.folder_contents import TOKENIZER_CONFIG
from app.weights.generation_checks import missing_template
from app.weights.thin_tokenizer import FILE, thin_out

MEMORY_BYTES = 512 << 20
"""Address space; Gemma's tokenizer of 262,144 tokens takes some 180 MB of memory."""
TIME_S = 30.0
RENDER_TIME_S = 5.0
RENDERED_LIMIT = 1 << 16
"""Characters that a template may make of the sample."""

_TEMPLATE = "chat_template.jinja"
_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")
_NO_TEMPLATE_NEEDED = "MistralCommonBackend"  # which renders conversations by itself
_SAMPLE = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "2 + 2 is 4."},
    {"role": "user", "content": "And what is 3 + 3?"},
]


def check_tokenizer(folder_dir: Path, embedding_rows: int | None) -> list[Finding]:
    """What is wrong with the tokenizer of a local folder that holds its files and config.json, and may be changed.

    `embedding_rows` is how many tokens the embedding has, None when that is not known. Raises SandboxFailed only
    when this system cannot confine a process.
    """
    folder_dir = folder_dir.resolve()
    try:
        unthinnable = thin_out(folder_dir, memory_bytes=MEMORY_BYTES, time_s=TIME_S)
    except sandbox.SandboxFailed as failure:
        _blame(failure)
        unthinnable = failure.reason
    if unthinnable:
        return [_unloadable(FILE, unthinnable)]
    template_problem = None
    try:
        found = _run(folder_dir, render=True)
    except sandbox.SandboxFailed as failure:
        _blame(failure)
        # Either of the two may have been killed. Without the template, does it load?
        template_problem = failure.reason
        try:
            found = _run(folder_dir, render=False)
        except sandbox.SandboxFailed as again:
            _blame(again)
            found = {"unloadable": again.reason}
    file = next((name for name in _FILES if (folder_dir / name).is_file()), TOKENIZER_CONFIG)
    if found.get("code"):
        return [_remote_code(found["code"])]
    if "unloadable" in found:
        return [_unloadable(file, found["unloadable"])]
    findings = [_vocabulary(file, found, embedding_rows)]
    findings.append(_template(folder_dir, found["has_template"], template_problem or found["template_problem"]))
    return [finding for finding in findings if finding]


def _run(folder_dir: Path, *, render: bool) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.run(_look, folder_dir, render, memory_bytes=MEMORY_BYTES, time_s=TIME_S)
    return found


def _blame(failure: sandbox.SandboxFailed) -> None:
    if failure.kind == "setup":
        raise failure


# ---- in the sandbox


def _look(folder_dir: Path, render: bool) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    code = _wanted_code(folder_dir)
    if code:
        return {"code": code}
    from transformers import AutoTokenizer  # noqa: PLC0415 (seconds, which callers that fork have behind them)

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder_dir), trust_remote_code=False, local_files_only=True)
        vocabulary = tokenizer.get_vocab()
        added = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
        ordinary = max((number for token, number in vocabulary.items() if token not in added), default=None)
        if ordinary is None:
            return {"unloadable": "there is no vocabulary"}  # a class may do without its file, and know nothing
    except MemoryError:
        raise
    except Exception as error:
        return {"unloadable": _first_line(error, folder_dir)}
    has_template = bool(getattr(tokenizer, "chat_template", None)) or type(tokenizer).__name__ == _NO_TEMPLATE_NEEDED
    found = {
        "tokens": max(len(tokenizer), 1 + max(vocabulary.values())),
        "ordinary_tokens": ordinary + 1,
        "sample_tokens": 0,
        "has_template": has_template,
        "template_problem": None,
    }
    if has_template and render:
        signal.setitimer(signal.ITIMER_REAL, RENDER_TIME_S)  # nobody handles it, so it ends the process
        found["template_problem"], text = _render(tokenizer, folder_dir)
        found["sample_tokens"] = 1 + max(tokenizer.encode(text, add_special_tokens=False), default=-1)
    return found


def _wanted_code(folder_dir: Path) -> str | None:
    """The class that the config wants loaded from the folder, or from elsewhere."""
    try:
        config = json.loads((folder_dir / TOKENIZER_CONFIG).read_bytes())
        wanted = config["auto_map"]
        wanted = wanted.get("AutoTokenizer") if isinstance(wanted, dict) else wanted
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # if it is broken, loading will say so
        return None
    return json.dumps(wanted) if wanted else None


def _render(tokenizer: Any, folder_dir: Path) -> tuple[str | None, str]:
    """(What is wrong, the rendered sample)."""
    problem = None
    for messages in (_SAMPLE, _SAMPLE[1:]):  # some templates refuse a system message, as is their right
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except MemoryError:
            raise
        except Exception as error:
            problem = problem or _first_line(error, folder_dir)
            continue
        if not isinstance(text, str) or len(text) > RENDERED_LIMIT:
            return f"it makes more than {RENDERED_LIMIT} characters of a short conversation", ""
        if messages[-1]["content"] not in text:
            return "what the user said last is missing from its text", text
        return None, text
    return problem, ""


def _first_line(error: Exception, folder_dir: Path) -> str:
    first, _, rest = str(error).replace(str(folder_dir), "the folder").strip().partition("\n")
    return f"{type(error).__name__}: {first} {rest if first.rstrip().endswith(':') else ''}"


# ---- in words


def _remote_code(wanted: str) -> Finding:
    return finding(
        "needs_remote_code",
        "Convert the tokenizer to tokenizer.json, or use a tokenizer class of transformers, and remove auto_map.",
        file=TOKENIZER_CONFIG,
        found=f"auto_map: {wanted}",
        expected="no auto_map",
    )


def _unloadable(file: str, reason: str) -> Finding:
    return finding(
        "tokenizer_unloadable",
        "Make sure that AutoTokenizer.from_pretrained loads the folder without a network and without running code.",
        file=file,
        found=sandbox.shown(reason),
        expected="a tokenizer that AutoTokenizer.from_pretrained loads",
    )


def _vocabulary(file: str, found: dict[str, Any], embedding_rows: int | None) -> Finding | None:
    if embedding_rows is None or found["tokens"] <= embedding_rows:
        return None
    return finding(
        "vocabulary_mismatch",
        "Resize the embedding to the tokenizer's vocabulary, or use the tokenizer that the weights were trained with.",
        file=file,
        found=f"{found['tokens']} tokens",
        expected=f"at most {embedding_rows}, the rows of the embedding",
        # Published text models carry a few tokens too many, of images for instance, and work while nobody uses them.
        warning=max(found["ordinary_tokens"], found["sample_tokens"]) <= embedding_rows,
    )


def _template(folder_dir: Path, has_template: bool, problem: str | None) -> Finding | None:
    if not has_template:
        return missing_template()
    if problem is None:
        return None
    return finding(
        "chat_template_broken",
        "Use the base model's chat template, or mend this one until apply_chat_template renders a conversation.",
        file=_TEMPLATE if (folder_dir / _TEMPLATE).is_file() else TOKENIZER_CONFIG,
        found=sandbox.shown(problem),
        expected="a conversation of system, user, assistant and user messages is rendered",
    )
