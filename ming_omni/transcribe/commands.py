"""What `ming transcribe` does, without the command line itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ming_omni.errors import InputError
from ming_omni.transcribe.context import Context
from ming_omni.transcribe.formats import FORMATS, SUBTITLE_FORMATS, render
from ming_omni.transcribe.hearing import Hearing
from ming_omni.transcribe.listening import transcribe
from ming_omni.transcribe.result import Transcript


def transcribe_command(
    ming: Hearing,
    files: Sequence[Path],
    *,
    context: Path | None = None,
    language: str | None = None,
    dialect: str | None = None,
    format: str = "txt",
    output: Path | None = None,
    timestamps: bool = False,
) -> None:
    """Transcribe files, each into a file beside the others or, without `output`, to standard output as it comes.

    context  a file of words, one a line, or JSON with topic, words and text
    output   a file for one sound, an existing folder for several
    """
    if format not in FORMATS:
        raise InputError(f"the format is one of {', '.join(FORMATS)}, not {format!r}")
    if len(files) > 1 and output is not None and not output.is_dir():
        raise InputError(f"several files need an existing folder as output, which {output} is not")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent}")
    for file in files:
        if not file.is_file():
            raise InputError(f"there is no file {file}")
    if output is not None and len({file.stem for file in files}) < len(files):
        raise InputError("two of the files have the same name, so one transcript would replace the other")
    options = {
        "context": Context.from_file(context) if context else None,
        "language": language,
        "dialect": dialect,
        "timestamps": timestamps or format in SUBTITLE_FORMATS,
    }
    for file in files:
        if output is None and format == "txt":
            transcript = _show(ming, file, **options)
        else:
            transcript = transcribe(ming, file, **options)
            if output is None:
                sys.stdout.write(render(transcript, format))
            else:
                path = output / f"{file.stem}.{format}" if output.is_dir() else output
                path.write_text(render(transcript, format), encoding="utf-8")
                print(f"{path}  {describe(transcript)}")
        for leak in transcript.leaks:
            what = f"{leak.verdict} {leak.word!r}"
            print(f"ming: {what}; without context this place reads {leak.instead!r}", file=sys.stderr)


def describe(transcript: Transcript) -> str:
    """Length, language and certainty in a line."""
    named = transcript.dialect or transcript.language or "no language named"
    sure = "" if transcript.confidence is None else f" ({transcript.confidence:.0%})"
    return f"{transcript.seconds:.1f} s, {len(transcript.segments)} segments, {named}{sure}"


def _show(ming: Hearing, file: Path, **options) -> Transcript:
    for update in transcribe(ming, file, stream=True, **options):
        print(update.text, end="", flush=True)
        transcript = update.transcript
    print()
    return transcript
