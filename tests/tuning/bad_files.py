"""Data files that cannot be tuned on, and what each is refused for."""

import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from app.tuning.data.conversations import MAX_CHARACTERS, MAX_TURNS
from tests.tuning.workbooks import (
    BOOK,
    SHARED,
    SHEET,
    TEXTS,
    sheet_xml,
    write_workbook,
    written_by_hand,
)

SUFFIX_FIX = "choose one file that ends in .jsonl, .xlsx, .csv"
TEXT_FIX = "format the column as text and enter it again, or save the sheet as 'CSV UTF-8'"


class BadFile(NamedTuple):
    name: str
    """Of the file; its suffix says what it claims to be."""
    content: bytes | Callable[[], bytes]
    line: int
    column: str
    cause: str
    """As it is told, word for word."""


def jsonl(*lines: object) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def moss_line(number: object = 1, **turns: object) -> dict[str, object]:
    return {"conversation_id": number, "chat": turns or {"turn_1": {"Human": "hi", "MOSS": "hello"}}}


def chat_line(*said: tuple[object, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def csv_text(*lines: str, header: str = "conversation_id,human,assistant", encoding: str = "utf-8") -> bytes:
    return "\n".join((header, *lines, "")).encode(encoding)


def workbook(*rows: Sequence[object], change: Callable[[Any, Any], None] | None = None) -> Callable[[], bytes]:
    def made() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return write_workbook(Path(folder) / "made.xlsx", rows, change).read_bytes()

    return made


def by_hand(
    rows: str, others: dict[str, str | bytes] | None = None, after: str = "", **how: Any
) -> Callable[[], bytes]:
    return lambda: written_by_hand(sheet_xml(rows, after), others, **how)


def _formula(book: Any, sheet: Any) -> None:
    sheet.write_formula("C3", "=B3", None, "cached")


def _numbers_by_formula(book: Any, sheet: Any) -> None:
    sheet.write_formula("A3", "=A2+1", None, 2)


def _date(book: Any, sheet: Any) -> None:
    sheet.write_datetime("B2", datetime(2026, 1, 2, 3), book.add_format({"num_format": "yyyy-mm-dd"}))


def _merged(book: Any, sheet: Any) -> None:
    sheet.merge_range("A2:A3", 1)


def _second_sheet(book: Any, sheet: Any) -> None:
    book.add_worksheet().write("A1", "more")


def _cut(made: Callable[[], bytes], bytes_kept: int) -> Callable[[], bytes]:
    return lambda: made()[:bytes_kept]


GOOD = moss_line()
ASK = ("user", "hi")
ANSWER = ("assistant", "hello")
ROW = (1, "hi", "hello")
INLINE = '<row r="2"><c r="A2"><v>1</v></c>{}</row>'
ENTITIES = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'

BAD = {
    # ---- JSON lines, as text
    "truncated": BadFile(
        "a.jsonl", jsonl(GOOD, GOOD) + b'{"conversation_id": 1, "chat": {"turn_1": {"Human": "hi', 3, "character 53",
        "is not JSON: unterminated string starting at",
    ),
    "not-json": BadFile("a.jsonl", jsonl(GOOD, b"hello"), 2, "character 1", "is not JSON: expecting value"),
    "single-quotes": BadFile(
        "a.jsonl", b"{'messages': []}\n", 1, "character 2",
        "is not JSON: expecting property name enclosed in double quotes",
    ),
    "two-on-a-line": BadFile(
        "a.jsonl", jsonl(GOOD).strip() + jsonl(GOOD), 1, "character 77", "is not JSON: extra data"
    ),
    "indented-json": BadFile(
        "a.jsonl", json.dumps(GOOD, indent=1).encode(), 1, "character 2",
        "is not JSON: expecting property name enclosed in double quotes",
    ),
    "line-end-in-text": BadFile(
        "a.jsonl", b'{"messages": [{"role": "user", "content": "one\ntwo"}]}\n', 1, "character 43",
        "is not JSON: unterminated string starting at",
    ),
    "json-list": BadFile("a.jsonl", json.dumps([GOOD]).encode(), 0, "", "this is one JSON list"),
    "nested": BadFile("a.jsonl", jsonl(b'{"a":' * 100_000), 1, "", "is nested too deeply"),
    "nan": BadFile("a.jsonl", b'{"conversation_id": NaN, "chat": {}}\n', 1, "", "holds NaN, which is not JSON"),
    "infinity": BadFile("a.jsonl", b'{"conversation_id": -Infinity}\n', 1, "", "holds -Infinity, which is not JSON"),
    "many-digits": BadFile(
        "a.jsonl", b'{"conversation_id": ' + b"9" * 5000 + b"}\n", 1, "", "holds a number of thousands of digits"
    ),
    "key-twice": BadFile(
        "a.jsonl", b'{"conversation_id": 1, "conversation_id": 2, "chat": {}}\n', 1, "conversation_id",
        "is there twice in one object",
    ),
    "turn-twice": BadFile(
        "a.jsonl", b'{"conversation_id": 1, "chat": {"turn_1": {}, "turn_1": {}}}\n', 1, "turn_1",
        "is there twice in one object",
    ),
    "gb18030": BadFile(
        "a.jsonl", jsonl(GOOD, json.dumps(chat_line(("user", "你好")), ensure_ascii=False).encode("gb18030")), 2,
        "character 44", "is not UTF-8 (it could be GB18030, as Excel's plain 'CSV' is in Chinese)",
    ),
    "latin-1": BadFile("a.jsonl", b'{"messages": "caf\xe9 "}\n', 1, "character 18", "is not UTF-8"),
    "raw-nul": BadFile("a.jsonl", b'{"messages"\0: []}\n', 1, "character 12", "is NUL, which no text holds"),
    "nul-escape": BadFile(
        "a.jsonl", jsonl(chat_line(("user", "a\0b"), ANSWER)), 1, "messages[0].content", "holds a NUL character"
    ),
    "lone-surrogate": BadFile(
        "a.jsonl", jsonl(chat_line(("user", "a\ud800b"), ANSWER)), 1, "messages[0].content",
        "holds half of a surrogate pair, which is no character",
    ),
    "long-line": BadFile(
        "a.jsonl", lambda: jsonl(GOOD, b"x" * (MAX_CHARACTERS + 1), GOOD), 2, "",
        f"is longer than {MAX_CHARACTERS} characters",
    ),
    "blank": BadFile("a.jsonl", b"\n  \n\n", 0, "", "there are no lines"),
    "empty": BadFile("a.jsonl", b"", 0, "", "the file is empty"),
    "utf-16-cut": BadFile(
        "a.jsonl", jsonl(GOOD).decode().encode("utf-16")[:-1], 1, "", "ends in the middle of a character"
    ),
    # ---- MOSS
    "id-missing": BadFile("a.jsonl", jsonl({"chat": {}}), 1, "conversation_id", "is missing"),
    "id-text": BadFile(
        "a.jsonl", jsonl(moss_line("1")), 1, "conversation_id", "is text, not a positive whole number"
    ),
    "id-true": BadFile(
        "a.jsonl", jsonl(moss_line(True)), 1, "conversation_id", "is true or false, not a positive whole number"
    ),
    "id-fraction": BadFile(
        "a.jsonl", jsonl(moss_line(1.5)), 1, "conversation_id",
        "is a number with a fraction, not a positive whole number",
    ),
    "id-zero": BadFile(
        "a.jsonl", jsonl(moss_line(0)), 1, "conversation_id", "is not a whole number from 1 to 9223372036854775807"
    ),
    "id-negative": BadFile(
        "a.jsonl", jsonl(moss_line(-4)), 1, "conversation_id", "is not a whole number from 1 to 9223372036854775807"
    ),
    "chat-missing": BadFile("a.jsonl", jsonl({"conversation_id": 1}), 1, "chat", "is missing"),
    "chat-list": BadFile(
        "a.jsonl", jsonl({"conversation_id": 1, "chat": []}), 1, "chat", "is a list, not an object"
    ),
    "chat-empty": BadFile("a.jsonl", jsonl({"conversation_id": 1, "chat": {}}), 1, "chat", "has no turn"),
    "turn-unknown": BadFile(
        "a.jsonl", jsonl(moss_line(first={})), 1, "chat.first", "is a key that is not known"
    ),
    "turn-gap": BadFile(
        "a.jsonl", jsonl(moss_line(turn_1={"Human": "a", "MOSS": "b"}, turn_3={"Human": "a", "MOSS": "b"})), 1,
        "chat.turn_2", "is missing",
    ),
    "turn-null": BadFile("a.jsonl", jsonl(moss_line(turn_1=None)), 1, "chat.turn_1", "is null, not an object"),
    "human-empty": BadFile(
        "a.jsonl", jsonl(GOOD, moss_line(turn_1={"Human": "", "MOSS": "b"})), 2, "chat.turn_1.Human", "is empty"
    ),
    "moss-blank": BadFile(
        "a.jsonl", jsonl(moss_line(turn_1={"Human": "a", "MOSS": " \n"})), 1, "chat.turn_1.MOSS", "is empty"
    ),
    "moss-missing": BadFile(
        "a.jsonl", jsonl(moss_line(turn_1={"Human": "a"})), 1, "chat.turn_1.MOSS", "is missing"
    ),
    "human-number": BadFile(
        "a.jsonl", jsonl(moss_line(turn_1={"Human": 7, "MOSS": "b"})), 1, "chat.turn_1.Human",
        "is a number, not text",
    ),
    "key-lower-case": BadFile(
        "a.jsonl", jsonl(moss_line(turn_1={"human": "a", "MOSS": "b"})), 1, "chat.turn_1.human",
        "is a key that is not known",
    ),
    "key-that-is-data": BadFile(
        "a.jsonl", jsonl({**GOOD, "my secret diary, page one": 1}), 1, "one more", "is a key that is not known"
    ),
    "mixed-forms": BadFile(
        "a.jsonl", jsonl(GOOD, chat_line(ASK, ANSWER)), 2, "messages", "is a key that is not known"
    ),
    "many-turns": BadFile(
        "a.jsonl",
        jsonl(moss_line(**{f"turn_{n}": {"Human": "a", "MOSS": "b"} for n in range(1, MAX_TURNS // 2 + 2)})),
        1, "chat", f"has more than {MAX_TURNS} turns",
    ),
    # ---- messages
    "line-is-text": BadFile("a.jsonl", b'"hello"\n', 1, "", "is text, not an object"),
    "messages-object": BadFile("a.jsonl", jsonl({"messages": {}}), 1, "messages", "is an object, not a list"),
    "messages-empty": BadFile("a.jsonl", jsonl({"messages": []}), 1, "messages", "has no message"),
    "message-text": BadFile("a.jsonl", jsonl({"messages": ["hi"]}), 1, "messages[0]", "is text, not an object"),
    "role-unknown": BadFile(
        "a.jsonl", jsonl(chat_line(("human", "hi"), ANSWER)), 1, "messages[0].role", "is not a role"
    ),
    "role-list": BadFile("a.jsonl", jsonl(chat_line((["user"], "hi"))), 1, "messages[0].role", "is not a role"),
    "content-parts": BadFile(
        "a.jsonl", jsonl(chat_line(("user", [{"type": "text", "text": "hi"}]), ANSWER)), 1, "messages[0].content",
        "is a list, not text",
    ),
    "content-null": BadFile(
        "a.jsonl", jsonl(chat_line(ASK, ("assistant", None))), 1, "messages[1].content", "is null, not text"
    ),
    "tool-calls": BadFile(
        "a.jsonl", jsonl({"messages": [{"role": "user", "content": "hi", "tool_calls": []}]}), 1,
        "messages[0].tool_calls", "is a key that is not known",
    ),
    "user-twice": BadFile(
        "a.jsonl", jsonl(chat_line(ASK, ASK, ANSWER)), 1, "messages[1].role",
        "user comes after user, where only assistant may",
    ),
    "assistant-first": BadFile(
        "a.jsonl", jsonl(chat_line(ANSWER, ASK, ANSWER)), 1, "messages[0].role",
        "assistant comes first, where only system or user may",
    ),
    "system-late": BadFile(
        "a.jsonl", jsonl(chat_line(ASK, ("system", "be kind"), ANSWER)), 1, "messages[1].role",
        "system comes after user, where only assistant may",
    ),
    "no-assistant": BadFile(
        "a.jsonl", jsonl(chat_line(("system", "be kind"), ASK)), 1, "messages",
        "has no assistant turn, so there is nothing to learn",
    ),
    "ends-with-user": BadFile("a.jsonl", jsonl(chat_line(ASK, ANSWER, ASK)), 1, "messages", "ends with user"),
    # ---- CSV
    "csv-no-header": BadFile(
        "a.csv", csv_text("2,a,b", header="1,hi,hello"), 1, "conversation_id", "is missing in the first row"
    ),
    "csv-other-names": BadFile(
        "a.csv", csv_text("1,a,b", header="conversation_id,Human,assistant"), 1, "human", "is missing in the first row"
    ),
    "csv-fourth-column": BadFile(
        "a.csv", csv_text("1,a,b,c", header="conversation_id,human,assistant,score"), 1, "score",
        "is a column too many",
    ),
    "csv-column-twice": BadFile(
        "a.csv", csv_text("1,a,b,c", header="conversation_id,human,assistant,human"), 1, "human",
        "is a column too many",
    ),
    "csv-semicolons": BadFile(
        "a.csv", csv_text("1;a;b", header="conversation_id;human;assistant"), 1, "",
        "the columns are separated by semicolons",
    ),
    "csv-tabs": BadFile(
        "a.csv", csv_text("1\ta\tb", header="conversation_id\thuman\tassistant", encoding="utf-16"), 1, "",
        "the columns are separated by tabs",
    ),
    "csv-comma-in-text": BadFile("a.csv", csv_text("1,a,b", "2,hi, you,b"), 3, "", "has 4 columns, not 3"),
    "csv-too-few": BadFile("a.csv", csv_text("1,a"), 2, "", "has 2 columns, not 3"),
    "csv-quote-open": BadFile(
        "a.csv", csv_text("1,a,b", '2,"hi,b', "3,c,d"), 3, "", "a quote that opens here is never closed"
    ),
    "csv-quote-open-long": BadFile(
        "a.csv", lambda: csv_text("1,a,b", '2,"hi,b', *["3,c,d" * 1000] * (MAX_CHARACTERS // 4000)), 3, "",
        f"a row has more than {MAX_CHARACTERS} characters; is a quote never closed?",
    ),
    "csv-after-quote": BadFile(
        "a.csv", csv_text('1,"a"b,c'), 2, "", "a quoted text goes on after its quote"
    ),
    "csv-id-word": BadFile(
        "a.csv", csv_text("1,a,b", "one,a,b"), 3, "conversation_id", "is not a positive whole number"
    ),
    "csv-id-other-digits": BadFile(
        "a.csv", csv_text("١,a,b"), 2, "conversation_id", "is not a positive whole number"
    ),
    "csv-id-huge": BadFile(
        "a.csv", csv_text("9999999999999999999,a,b"), 2, "conversation_id",
        "is not a whole number from 1 to 9223372036854775807",
    ),
    "csv-id-empty": BadFile("a.csv", csv_text("1,a,b", ",c,d"), 3, "conversation_id", "is empty"),
    "csv-human-empty": BadFile("a.csv", csv_text("1,,b"), 2, "human", "is empty"),
    "csv-assistant-blank": BadFile("a.csv", csv_text('1,"a\nb"," "', "2,a,b"), 2, "assistant", "is empty"),
    "csv-nul": BadFile("a.csv", csv_text("1,a\0,b"), 2, "character 4", "is NUL, which no text holds"),
    "csv-gb18030": BadFile(
        "a.csv", csv_text("1,a,b", "2,你好,b", encoding="gb18030"), 3, "character 3",
        "is not UTF-8 (it could be GB18030, as Excel's plain 'CSV' is in Chinese)",
    ),
    "csv-header-only": BadFile("a.csv", csv_text(), 0, "", "there are no rows"),
    "csv-one-conversation": BadFile(
        "a.csv", csv_text(*["1,a,b"] * (MAX_TURNS // 2 + 1)), MAX_TURNS // 2 + 2, "conversation_id",
        f"one conversation has more than {MAX_TURNS} turns",
    ),
    # ---- workbooks
    "xlsx-formula": BadFile("a.xlsx", workbook(ROW, ROW, change=_formula), 3, "assistant (C3)", "holds a formula"),
    "xlsx-formula-id": BadFile(
        "a.xlsx", workbook(ROW, ROW, change=_numbers_by_formula), 3, "conversation_id (A3)", "holds a formula"
    ),
    "xlsx-date": BadFile(
        "a.xlsx", workbook(ROW, change=_date), 2, "human (B2)", "is a number, not text or a whole number"
    ),
    "xlsx-number": BadFile("a.xlsx", workbook((1, "2+2?", 4)), 2, "assistant", "is a number, not text"),
    "xlsx-true": BadFile("a.xlsx", workbook((1, "a", True)), 2, "assistant (C2)", "is true or false, not text"),
    "xlsx-error": BadFile(
        "a.xlsx", by_hand(INLINE.format('<c r="B2" t="e"><v>#N/A</v></c>')), 2, "human (B2)", "is an error of a formula"
    ),
    "xlsx-id-fraction": BadFile(
        "a.xlsx", workbook((1.5, "a", "b")), 2, "conversation_id (A2)", "is a number, not text or a whole number"
    ),
    "xlsx-id-zero": BadFile(
        "a.xlsx", workbook((0, "a", "b")), 2, "conversation_id", "is not a whole number from 1 to 9223372036854775807"
    ),
    "xlsx-empty-cell": BadFile("a.xlsx", workbook(ROW, (1, "a", None)), 3, "assistant", "is empty"),
    "xlsx-fourth-column": BadFile("a.xlsx", workbook((1, "a", "b", "c")), 2, "", "has 4 columns, not 3"),
    "xlsx-far-column": BadFile("a.xlsx", workbook((1, "a", "b", *[None] * 200, "c")), 2, "", "has 4 columns, not 3"),
    "xlsx-merged": BadFile(
        "a.xlsx", workbook((1, "a", "b"), (None, "c", "d"), change=_merged), 2, "A2:A3",
        "cells are merged, so that only the first has a value",
    ),
    "xlsx-two-sheets": BadFile(
        "a.xlsx", workbook(ROW, change=_second_sheet), 0, "", "several sheets of the workbook hold data"
    ),
    "xlsx-no-rows": BadFile("a.xlsx", workbook(), 0, "", "there are no rows"),
    "xlsx-old": BadFile(
        "a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(600), 0, "", "this is an old .xls or a workbook with a password"
    ),
    "xlsx-cut": BadFile("a.xlsx", _cut(workbook(ROW), 3000), 0, "", "the workbook is damaged or cut short"),
    "xlsx-no-book": BadFile("a.xlsx", by_hand("", {"_rels/.rels": "<R/>"}), 0, "", "the workbook lacks a part"),
    "xlsx-broken-xml": BadFile(
        "a.xlsx", by_hand("<row r='2'><c></row>"), 2, "", "the workbook is damaged: its XML is not well-formed"
    ),
    "xlsx-unknown-text": BadFile(
        "a.xlsx", by_hand(INLINE.format('<c r="B2" t="s"><v>9</v></c>')), 2, "",
        "the workbook refers to a text that it does not have",
    ),
    "xlsx-rows-turned": BadFile(
        "a.xlsx", by_hand('<row r="3"/><row r="2"/>'), 3, "", "the workbook numbers its rows in no order"
    ),
    "xlsx-entity-bomb": BadFile(
        "a.xlsx", by_hand("", {TEXTS: ENTITIES + SHARED}), 0, "",
        "the workbook has a document type, in which entity bombs hide",
    ),
    "xlsx-entity-bomb-book": BadFile(
        "a.xlsx", by_hand("", {"xl/workbook.xml": ENTITIES + BOOK}), 0, "",
        "the workbook has a document type, in which entity bombs hide",
    ),
    "xlsx-zip-bomb": BadFile(
        "a.xlsx", by_hand(INLINE.format('<c r="B2" t="inlineStr"><is><t>' + "a" * (20 << 20) + "</t></is></c>")), 2, "",
        "the workbook expands to far more than a table of this size would, as a zip bomb does",
    ),
    "xlsx-deep": BadFile("a.xlsx", by_hand("<a>" * 1000), 1, "", "the workbook is nested too deeply"),
    "xlsx-many-names": BadFile(
        "a.xlsx", by_hand("".join(f"<a{n}/>" for n in range(2000))), 1, "",
        "the workbook has more names of elements than any table",
    ),
    "xlsx-long-tag": BadFile(
        "a.xlsx", by_hand("<c " + " " * (3 << 20) + "/>"), 1, "", "the workbook has a tag without end"
    ),
    "xlsx-lzma": BadFile("a.xlsx", by_hand("", compression=14), 0, "", "the workbook is packed in an unusual way"),
    "xlsx-many-parts": BadFile(
        "a.xlsx", lambda: written_by_hand(sheet_xml(""), {f"{n:0200}": "" for n in range(20_000)}), 0, "",
        "the workbook has far more parts than a table",
    ),
    "xlsx-no-sheet": BadFile(
        "a.xlsx", by_hand("", {SHEET: b""}), 0, "", "the workbook is damaged: its XML is not well-formed"
    ),
    # ---- files of other kinds
    "other-suffix": BadFile("a.txt", jsonl(GOOD), 0, "", "the name ends in none of .jsonl, .xlsx, .csv"),
    "xlsx-is-csv": BadFile(
        "a.xlsx", csv_text("1,a,b"), 0, "", "this is no .xlsx workbook, whatever its name says"
    ),
    "csv-is-xlsx": BadFile("a.csv", workbook(ROW), 0, "", "this is a zip archive or a workbook"),
    "gzip": BadFile("a.jsonl", gzip.compress(jsonl(GOOD), mtime=0), 0, "", "this is compressed by gzip"),
}  # fmt: skip
