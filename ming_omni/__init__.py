"""ming-omni: one model takes text, pictures, video and sound, and answers in text, pictures and speech."""

__version__ = "0.1.0"

# Heavy things are imported when they are first asked for, so that `import ming_omni` and `ming --help` are instant.
_LAZY = {
    "Ming": "ming_omni.ming",
    "MingForConditionalGeneration": "ming_omni.checkpoint.pretrained",
    "MingProcessor": "ming_omni.inputs.processor",
}
# The name under which the published scripts import the model.
_ALIASES = {"BailingMM2NativeForConditionalGeneration": "MingForConditionalGeneration"}


def register() -> None:
    """Let the auto classes of transformers load Ming folders, without ever running code that lies in one.

    Done for you when you import a class from this package; call it if you only use AutoModel and its kin.
    """
    from ming_omni.checkpoint import auto

    auto.register()


def __getattr__(name: str):
    target = _ALIASES.get(name, name)
    if target not in _LAZY:
        raise AttributeError(f"module 'ming_omni' has no attribute {name!r}")
    import importlib

    if target in ("MingForConditionalGeneration", "MingProcessor"):
        register()
    return getattr(importlib.import_module(_LAZY[target]), target)
