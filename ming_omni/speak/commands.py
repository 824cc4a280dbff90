"""What `ming speak` and `ming voices` do, without the command line itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ming_omni.errors import InputError
from ming_omni.speak import output
from ming_omni.speak.speaker import Speaker
from ming_omni.speech.voices import Shelf, Voice

READ_CHARACTERS = 64


def speak(
    speaker: Speaker,
    text: str,
    *,
    voice: str | None = None,
    speed: float = 1.0,
    seed: int | None = None,
    path: Path | None = None,
    format: str | None = None,
    sample_rate_hz: int | None = None,
    play: bool = False,
) -> None:
    """Say a text into a file, to standard output (path "-") or on the loudspeaker; the text "-" is read as it comes."""
    if path is None and not play:
        raise InputError("say where the speech should go: a file (--output) or the loudspeaker (--play)")
    to_stdout = path is not None and str(path) == "-"
    kind = format or ("wav" if path is None or to_stdout else output.format_of(path))
    rate_hz = speaker.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
    output.kind_of(kind, rate_hz)
    pieces = _standard_input() if text == "-" else text
    chunks = speaker.speak(pieces, voice, speed=speed, seed=seed, sample_rate_hz=rate_hz, stream=True)
    if play:
        output.play(chunks, rate_hz)
    elif to_stdout:
        for data in output.encode(chunks, kind, rate_hz):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    else:
        sound = output.gather(chunks, rate_hz).save(path, kind)
        print(f"{path}: {sound.seconds:.1f} seconds")


def _standard_input() -> Iterator[str]:
    while piece := sys.stdin.read(READ_CHARACTERS):
        yield piece


def list_voices(shelf: Shelf) -> None:
    """One line a voice: name, seconds, who consented, transcript; or why its file cannot be used."""
    for name in shelf.names():
        try:
            voice = shelf.get(name)
        except InputError as error:
            print(f"{name}\t{error}")
            continue
        about = (" ".join((note or "").split()) for note in (voice.consent, voice.transcript))
        print("\t".join([name, f"{voice.seconds:.1f} s", *about]).rstrip())


def add_voice(
    shelf: Shelf, name: str, audio: Path, transcript: str | None, consent: str, replace: bool = False
) -> None:
    from ming_omni.inputs.audio import load_audio
    from ming_omni.speech.voices import SAMPLE_RATE_HZ

    voice = Voice.clone(name, load_audio(audio, sample_rate_hz=SAMPLE_RATE_HZ), transcript, consent=consent)
    print(shelf.add(voice, replace=replace))


def delete_voice(shelf: Shelf, name: str) -> None:
    shelf.delete(name)
    print(f"deleted the voice {name}")
