"""What callers hear of a prompt and an answer that are too long for a model."""

from app.core.errors import BadRequest


class TooLong(Exception):
    """A prompt and its answer are longer together than the model takes; all in tokens."""

    def __init__(self, prompt: int, answer: int | None, limit: int):
        super().__init__(prompt, answer, limit)

    def refusal(self, field: str) -> BadRequest:
        """For a request that gave the length of its answer in this field, if it did."""
        prompt, answer, limit = self.args
        wanted = f"{field} is {answer}: {prompt + answer} together" if answer else "leaves no room for an answer"
        message = f"The prompt has {prompt} tokens and {wanted}; this endpoint takes {limit} (max_model_len)."
        return BadRequest(message, field if answer else "messages", "context_length_exceeded")
