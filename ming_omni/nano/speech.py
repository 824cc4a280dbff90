"""A trained talker, its AudioVAE, a dictionary and voices -> what nano's folder needs to speak.

`ming build nano-talker` runs this. Matrices are rounded to 8 bits, the rest to fp16.

talker/config.json, model.safetensors     the talker with its AudioVAE, packed rows (`packed`)
talker/symbols.json, words.tsv.xz         what it reads (`speech.reading`)
voices/*.safetensors                      built-in voices (`speech.voices`)
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.config import TalkerConfig, all_settings
from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.nano.files import check, round_off, stored, write_json, write_weights
from ming_omni.speech.reading import WORDS_FILE, Reader, read_words
from ming_omni.speech.voices import SUFFIX, Voice

DEFAULTS = {"en": "heart", "zh": "xiaobei"}
"""Who speaks where no voice is asked for, if they are among the voices."""
SENTENCE_SECONDS = 9.0
"""Of slow speech (`speech.breaths`): 128 letters, which are 22 English words, or 36 hanzi. Of the sentences that nano
learned from, one in a hundred is longer than 20 words or 32 hanzi."""
VOICE_SECONDS = 6.3
"""With such a sentence it fills the 15.4 s of the longest row (`train.talker.settings`)."""

NOISE = 0.8
"""Of its usual spread, that speech begins with: it sounds cleaner than with 1 (docs/nano/talker.md)."""


def ship_talker(
    config: TalkerConfig, weights: dict[str, Tensor], output: Path, words: Path, voices: Path | None = None
) -> None:
    """Write into `output`, a model folder or a new one.

    weights  by name, fp32, those of the AudioVAE included
    words    what `ming data words` made
    voices   what `ming data voices` made
    """
    with torch.device("meta"):
        check("talker", Talker(config), weights)
    talker = output / "talker"
    talker.mkdir(parents=True, exist_ok=True)
    if voices is not None:
        names = ship_voices(voices, output / "voices")
        config.default_voices = {language: name for language, name in DEFAULTS.items() if name in names} or None
    config.sentence_seconds, config.voice_seconds, config.noise = SENTENCE_SECONDS, VOICE_SECONDS, NOISE
    write_weights(talker, {"model": stored({name: round_off(name, value) for name, value in weights.items()})})
    write_json(talker / "config.json", all_settings(config))
    Reader(read_words(words if words.is_file() else words / WORDS_FILE)).save_pretrained(talker)


def ship_voices(voices: Path, output: Path) -> list[str]:
    """Their names; a file that is no voice stops everything."""
    files = sorted(voices.glob(f"*{SUFFIX}"))
    if not files:
        raise InputError(f"{voices} holds no voices")
    output.mkdir(exist_ok=True)
    for file in files:
        Voice.load(file)
        shutil.copyfile(file, output / file.name)  # not its rights, which may be its owner's alone
    return [file.stem for file in files]
