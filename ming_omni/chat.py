"""Lines typed in a terminal -> answers streamed back, with the history kept: `ming chat`."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from ming_omni.errors import InputError

HELP = """\
/image FILE   attach a picture to the next message      /new      forget the conversation
/audio FILE   attach a sound                            /system   show or change the system prompt
/video FILE   attach a video or a folder of frames      /help     this text
/undo         take the last exchange back               /quit     leave (or Ctrl-D)
Ctrl-C stops an answer; it stays in the history as far as it got."""


class Chat:
    """One conversation with `ming`, driven by lines from `read` and shown through `write`."""

    def __init__(self, ming, system: str | None = None, *, read=input, write=None, **options):
        self.ming, self.system, self.options = ming, system, options
        self.read = read
        self.write = write or (lambda text: print(text, end="", flush=True))
        self.history: list = []
        self.attached: list = []

    def run(self) -> None:
        """Read and answer until the end of input."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - arrow keys and line history where the platform has it
        self.write(f"{self.ming.name} on {self.ming.device}. /help lists the commands, Ctrl-D leaves.\n")
        while True:
            try:
                line = self.read("\n> ").strip()
            except EOFError:
                self.write("\n")
                return
            except KeyboardInterrupt:
                self.write("\n(Ctrl-D leaves)")
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                self.command(line) if line.startswith("/") else line and self.answer(line)
            except InputError as error:
                self.write(f"{error}\n")

    def command(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if name in ("image", "audio", "video"):
            self.attach(name, rest.strip())
        elif name == "new":
            self.history, self.attached = [], []
            self.write("A new conversation.\n")
        elif name == "undo":
            self.history = self.history[:-2]
            self.write(f"{len(self.history) // 2} exchanges remain.\n")
        elif name == "system":
            self.system = rest.strip() or self.system
            self.write(f"System prompt: {self.system or '(the default)'}\n")
        elif name == "help":
            self.write(HELP + "\n")
        else:
            raise InputError(f"there is no command /{name}; /help lists them")

    def attach(self, kind: str, argument: str) -> None:
        from ming_omni.inputs import messages

        if not argument:
            raise InputError(f"say which file: /{kind} FILE")
        try:
            paths = shlex.split(argument) if argument[0] in "'\"" else [argument]
            path = Path(paths[0]).expanduser()
        except (ValueError, RuntimeError) as error:  # an open quotation, an unknown home
            raise InputError(f"{argument}: {error}") from None
        if len(paths) > 1:
            raise InputError(f"one file at a time: /{kind} FILE")
        if not paths[0] or not path.exists():
            raise InputError(f"there is no file {paths[0]}")
        self.ming.requires(kind)
        part = {"image": messages.Image, "audio": messages.Audio, "video": messages.Video}[kind]
        self.attached.append(part(path))
        self.write(f"{path.name} goes with your next message.\n")

    def answer(self, text: str) -> None:
        """Stream the answer to one message; Ctrl-C keeps what has been said so far."""
        from ming_omni.inputs.messages import Message, Text

        # Let go at once: a file that cannot be read must not spoil every later message.
        attached, self.attached = self.attached, []
        message = Message("user", [*attached, Text(text)])
        said = []
        try:
            stream = self.ming.reply([*self.history, message], system=self.system, **self.options)
        except InputError as error:
            hint = "; what was attached to it must be attached again" if attached else ""
            raise InputError(f"{error}{hint}") from None
        try:
            for piece in stream:
                said.append(piece)
                self.write(piece)
        except KeyboardInterrupt:
            stream.close()
            self.write(" (stopped)")
        self.write("\n")
        self.history += [message, Message("assistant", [Text("".join(said))])]
