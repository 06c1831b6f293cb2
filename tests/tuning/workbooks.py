"""Workbooks, written by a library as people's programs write them, and by hand as nobody should."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xlsxwriter

HEADER = ("conversation_id", "human", "assistant")

TYPES = """<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>"""
RELATIONSHIP = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
ROOT_RELATIONS = f"""<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="{RELATIONSHIP}/officeDocument" Target="xl/workbook.xml"/></Relationships>"""
BOOK = f"""<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIP}"><sheets><sheet name="one" sheetId="1" r:id="r1"/></sheets>
</workbook>"""
BOOK_RELATIONS = f"""<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="{RELATIONSHIP}/worksheet" Target="worksheets/sheet1.xml"/>
<Relationship Id="r2" Type="{RELATIONSHIP}/sharedStrings" Target="/xl/sharedStrings.xml"/></Relationships>"""
SHARED = f"""<sst xmlns="{MAIN}"><si><t>conversation_id</t></si><si><t>human</t></si><si><t>assistant</t></si></sst>"""
HEADER_ROW = '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s"><v>2</v></c></row>'
SHEET = "xl/worksheets/sheet1.xml"
TEXTS = "xl/sharedStrings.xml"


def write_workbook(
    path: Path, rows: Sequence[Sequence[object]], change: Callable[[Any, Any], None] | None = None
) -> Path:
    """Rows as they are typed, below the header; `change(book, sheet)` does more."""
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate((HEADER, *rows)):
            for column, value in enumerate(row):
                if value is not None:
                    sheet.write(number, column, value)
        if change:
            change(book, sheet)
    return path


def sheet_xml(rows: str, after: str = "") -> str:
    return f'<worksheet xmlns="{MAIN}"><sheetData>{HEADER_ROW}{rows}</sheetData>{after}</worksheet>'


def written_by_hand(sheet: str, others: Mapping[str, str | bytes] | None = None, **how: Any) -> bytes:
    """The bytes of a workbook with this sheet; `others` replaces or adds parts."""
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": TYPES, "_rels/.rels": ROOT_RELATIONS, "xl/workbook.xml": BOOK,
        "xl/_rels/workbook.xml.rels": BOOK_RELATIONS, TEXTS: SHARED, SHEET: sheet, **(others or {}),
    }  # fmt: skip
    made = io.BytesIO()
    with zipfile.ZipFile(
        made, "w", how.get("compression", zipfile.ZIP_DEFLATED), compresslevel=how.get("level")
    ) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()
