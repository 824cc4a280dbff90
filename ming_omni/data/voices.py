"""The speech teacher -> named voices, a sentence of each, as `ming voices` keeps them: what nano's talker clones.

Nobody is imitated: they are voices of Kokoro-82M (Apache-2.0), which say a sentence each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from ming_omni.data.phonemes import Espeak, phonemes
from ming_omni.data.speaking import SAMPLE_RATE_HZ, TEACHER_HZ
from ming_omni.data.teacher import Teacher
from ming_omni.speech.voices import SUFFIX, Voice

VOICES = {
    "heart": "af_heart", "bella": "af_bella", "nicole": "af_nicole", "michael": "am_michael", "fenrir": "am_fenrir",
    "emma": "bf_emma", "george": "bm_george", "xiaobei": "zf_xiaobei", "xiaoxiao": "zf_xiaoxiao",
    "yunjian": "zm_yunjian", "yunxi": "zm_yunxi",
}  # fmt: skip
SENTENCES = {
    "en": "Good morning! I hope you slept well, because we have a long way to go today.",
    "zh": "早上好！希望你睡得不错，因为今天我们还有很长的路要走。",
}
CONSENT = "A synthetic voice of Kokoro-82M (Apache-2.0, hexgrad): {}"


def build_voices(output: Path, teacher: Path, packages_folder: Path | None = None) -> dict:
    import soxr

    speaker, espeak = Teacher(teacher), Espeak(packages_folder)
    for name, voice in VOICES.items():
        text = SENTENCES["zh" if voice[0] == "z" else "en"]
        (sounds,) = phonemes([text], espeak, "en-gb" if voice[0] == "b" else "en-us")
        (samples,) = speaker.speak([sounds], [{voice: 1.0}])
        samples = soxr.resample(samples.numpy().astype(np.float32), TEACHER_HZ, SAMPLE_RATE_HZ)
        consent = CONSENT.format(voice)
        Voice.clone(name, torch.from_numpy(samples), text, consent=consent).save(output / f"{name}{SUFFIX}")
    manifest = json.loads((teacher / "manifest.json").read_text()) if (teacher / "manifest.json").exists() else {}
    about = {"kind": "voices", "voices": VOICES, "sources": manifest.get("sources", [])}
    (output / "manifest.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return about
