"""What is wrong with a data file: where, why, and what to do. Never with a word of the data themselves."""

from dataclasses import dataclass

PROBLEM_LIMIT = 20
"""So many are told at once; reading ends there."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a data file."""

    line: int
    """Of a text file, or the row of a sheet; from 1. 0: the whole file is meant."""
    column: str
    """Where in the line: a table's column, a key such as `chat.turn_2.Human`, or `character 17`; may be empty."""
    cause: str
    fix: str
    unit: str = "line"
    """What `line` counts: "line" or "row"."""

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"{self.unit} {self.line}" if self.line else "", self.column) if part)
        return f"{where}: {self.cause}; {self.fix}" if where else f"{self.cause}; {self.fix}"


class DataProblems(Exception):
    """A data file cannot be used. All that was found, up to PROBLEM_LIMIT, is in `problems`, in the file's order."""

    def __init__(self, problems: tuple[Problem, ...]):
        # Some are only seen behind others that they stand before: merged cells are told at the end of a sheet.
        super().__init__(tuple(sorted(problems, key=lambda problem: problem.line)))

    @property
    def problems(self) -> tuple[Problem, ...]:
        problems: tuple[Problem, ...] = self.args[0]
        return problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Wrong(Exception):
    """Something is wrong in what is being read; whoever knows the line makes a Problem of it."""

    def __init__(self, column: str, cause: str, fix: str):
        super().__init__(column, cause, fix)

    @property
    def where_why_fix(self) -> tuple[str, str, str]:
        column, cause, fix = self.args
        return column, cause, fix


class ProblemList:
    """Collects problems while a file is read."""

    def __init__(self, unit: str = "line"):
        self._unit = unit
        self._problems: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(self, line: int, wrong: Wrong) -> None:
        """Note it. Raises DataProblems when there are as many as are told at once."""
        self._problems.append(Problem(line, *wrong.where_why_fix, self._unit))
        if len(self._problems) >= PROBLEM_LIMIT:
            self.raise_any()

    def stop(self, line: int, wrong: Wrong) -> DataProblems:
        """To be raised where nothing that follows could be understood: what was noted, and this."""
        return DataProblems((*self._problems, Problem(line, *wrong.where_why_fix, self._unit)))

    def raise_any(self) -> None:
        """Raises DataProblems if anything was noted."""
        if self._problems:
            raise DataProblems(tuple(self._problems))
