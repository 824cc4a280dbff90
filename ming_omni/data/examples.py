"""What every kind of picture example holds: scenes, what is asked, what is right, facts for a judge."""

from __future__ import annotations

from dataclasses import dataclass, field

from ming_omni.data.scenes import Scene


@dataclass(frozen=True)
class Example:
    """One example, not yet drawn. A film has a scene for each frame; an edit has the scenes before and after."""

    kind: str
    scenes: tuple[Scene, ...]
    prompt: str
    answer: str = ""
    is_chinese: bool = False
    targets: tuple[int, ...] = ()
    """Things whose pixels make the mask, or which the edit changes."""
    facts: dict = field(default_factory=dict)
    """Plain values: `template` is what stays of the question when names are taken out; the rest is for judges."""

    def label(self) -> dict:
        """As stored beside the pictures."""
        scene = self.scenes[-1]
        return {
            "kind": self.kind,
            "prompt": self.prompt,
            "answer": self.answer,
            "language": "zh" if self.is_chinese else "en",
            "facts": self.facts,
            "things": [
                {
                    "name": t.concept,
                    "style": t.style,
                    "colour": t.colour,
                    "place": [round(v, 3) for v in (t.x, t.y, t.size)],
                }
                for t in scene.things
            ],
            "words": [line.text for line in scene.words],
            "background": scene.background.name,
        }
