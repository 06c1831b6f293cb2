"""A control API of a few answers in a row, and a clock that goes on by itself."""

from typing import Any


class PlayedAnswers:
    """Answers each question with the next of its answers: a record, or an error to raise."""

    def __init__(self, *answers: Any):
        self._answers = list(answers)

    def call(self, *_: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def list(self, *_: Any) -> Any:
        return self.call()


class Clock:
    """Goes on by a second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now
