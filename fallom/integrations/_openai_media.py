"""Reading OpenAI's smaller APIs: embeddings, images, sound, and the legacy text completions.

Of what they make or are given as files nothing is kept: no picture, no sound, no vector.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import Room, encode_messages, field, items
from fallom.integrations._openai_chat import chat_usage
from fallom.integrations._reading import (
    SAMPLING,
    Answer,
    Gathered,
    Parameters,
    choice_count,
    count,
    counts,
    model_of,
    parameters,
    text_part,
    words,
)

__all__ = [
    "CompletionReader",
    "EmbeddingsReader",
    "ImageReader",
    "SpeechReader",
    "TranscriptReader",
]


_TOTALS = {"input_tokens": names.INPUT_TOKENS, "output_tokens": names.OUTPUT_TOKENS}


class _Reader:
    """What these readers share: a model, an answer with an id and usage, and no content."""

    operation = "generate_content"
    takes_prompt = False
    output_type = ""
    parameters: ClassVar[Parameters] = {**SAMPLING, "n": (names.CHOICE_COUNT, choice_count)}

    def __init__(self, body: Any, content_captured: bool) -> None:
        self._body = body
        self._content_captured = content_captured
        self._answer = Answer()
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = parameters(body, self.parameters)
        if self.output_type:
            found[names.OUTPUT_TYPE] = self.output_type
        self._prompt(found, self._prompt_of(body))
        return found

    def _prompt_of(self, body: Any) -> Any:
        """Give the text that is asked with, as this API has it; None where it is not recorded."""

    def _prompt(self, found: dict[str, AttributeValue], prompt: Any) -> None:
        if self._content_captured and isinstance(prompt, (str, list, tuple)):
            prompts = [prompt] if isinstance(prompt, str) else prompt
            found[names.INPUT_MESSAGES] = encode_messages(
                prompts, lambda text: {"role": "user", "parts": [text_part(Room(), text)]}
            )

    def piece(self, piece: Any) -> None:
        """Take an event of a stream."""
        self._answer.named(piece)
        usage = field(piece, "usage")
        counts(self._answer.usage, usage, _TOTALS)

    def whole(self, answer: Any) -> None:
        """Take an answer."""
        self.piece(answer)

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        return self._answer.attributes()


class EmbeddingsReader(_Reader):
    """Reads one call of ``/embeddings``. The texts are not recorded: they are whole libraries."""

    operation = "embeddings"
    parameters: ClassVar[Parameters] = {
        **_Reader.parameters,
        "dimensions": (names.DIMENSION_COUNT, count),
        "encoding_format": (names.ENCODING_FORMATS, words),
    }

    def whole(self, answer: Any) -> None:
        """Take the vectors' envelope, and the length of the first."""
        self._answer.named(answer)
        self._answer.usage = chat_usage(field(answer, "usage"))
        vectors = items(field(answer, "data"))
        vector = field(vectors[0], "embedding") if vectors else None
        if isinstance(vector, list):
            self._answer.usage[names.DIMENSION_COUNT] = len(vector)


class ImageReader(_Reader):
    """Reads one call of ``/images/...``."""

    output_type = "image"

    def _prompt_of(self, body: Any) -> Any:
        return field(body, "prompt")


class SpeechReader(_Reader):
    """Reads one call of ``/audio/speech``. Its answer is sound, which no decoder here reads."""

    output_type = "speech"

    def _prompt_of(self, body: Any) -> Any:
        return field(body, "input")

    def whole(self, answer: Any) -> None:
        """Take nothing."""


class TranscriptReader(_Reader):
    """Reads one call of ``/audio/transcriptions`` or ``/audio/translations``."""

    output_type = "text"

    def __init__(self, body: Any, content_captured: bool) -> None:
        super().__init__(body, content_captured)
        self._text = Gathered()

    def piece(self, piece: Any) -> None:
        """Take an event of a stream."""
        super().piece(piece)
        if self._content_captured and field(piece, "type") == "transcript.text.delta":
            self._text.add(field(piece, "delta"))

    def whole(self, answer: Any) -> None:
        """Take a transcript, which is bare text in some formats."""
        super().whole(answer)
        if self._content_captured:
            self._text.add(answer if isinstance(answer, str) else field(answer, "text"))

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        found = super().answer(is_stream)
        if self._text:
            message = {"role": "assistant", "parts": [text_part(Room(), str(self._text))]}
            message["finish_reason"] = "stop"
            found[names.OUTPUT_MESSAGES] = encode_messages([message], lambda built: built)
        return found


class CompletionReader(_Reader):
    """Reads one call of the legacy ``/completions``."""

    operation = "text_completion"
    takes_prompt = True
    parameters: ClassVar[Parameters] = {
        **_Reader.parameters,
        "max_tokens": (names.MAX_TOKENS, count),
        "stop": (names.STOP_SEQUENCES, words),
    }

    def __init__(self, body: Any, content_captured: bool) -> None:
        super().__init__(body, content_captured)
        self._texts: dict[int, Gathered] = {}

    def _prompt_of(self, body: Any) -> Any:
        prompt = field(body, "prompt")
        if items(prompt) and not isinstance(prompt[0], str):
            return "[tokens]"  # a prompt may be given as numbers, or as lists of them
        return prompt

    def piece(self, piece: Any) -> None:
        """Take a chunk, or a completion: their choices are alike."""
        self._answer.named(piece)
        usage = field(piece, "usage")
        if usage is not None:
            self._answer.usage = chat_usage(usage)
        for choice in items(field(piece, "choices")):
            index = self._answer.choice(field(choice, "index"), field(choice, "finish_reason"))
            if self._content_captured:
                self._texts.setdefault(index, Gathered()).add(field(choice, "text"))

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)
        found = super().answer(is_stream)
        if self._texts:
            found[names.OUTPUT_MESSAGES] = encode_messages(
                sorted(self._texts),
                lambda index: self._answer.message(
                    index, "assistant", [text_part(Room(), str(self._texts[index]))]
                ),
            )
        return found
