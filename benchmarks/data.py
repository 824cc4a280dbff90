"""How fast training data is made; right first, then timed; prints JSON.

    python -m benchmarks.data --bank BANK                     scenes on the CPU, two workers
    python -m benchmarks.data --bank BANK --device cuda       scenes on a GPU, held against the CPU's
    python -m benchmarks.data --teacher FOLDER --device cuda  speech: how many times faster than it plays

BANK and FOLDER are what `ming data sprites` and `ming data teacher` made; both may be given at once.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from ming_omni.data.bank import Bank, stock
from ming_omni.data.pictures import KINDS, draw, example
from ming_omni.data.teacher import Teacher

SIZE, ROUNDS = 256, 3
SENTENCES = ("həlˈO, hˌW ɑɹ ju tədˈA?", "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ.")


def scenes_per_second(bank: Path, device: str, batch: int, first: int = 0, clock=time.perf_counter) -> float:
    """Planning and drawing together, every kind in turn; the median of a few rounds after one that warms up."""
    torch.set_num_threads(1)
    chosen, kinds, rates = stock(Bank(bank, device)), list(KINDS), []
    for turn in range(ROUNDS + 1):
        started, count = clock(), 0
        for start in range(0, 4 * batch, batch):
            numbers = range(first + turn * 4 * batch + start, first + turn * 4 * batch + start + batch)
            examples = [example(chosen, kinds[i % len(kinds)], 0, i) for i in numbers]
            count += sum(len(item.scenes) for item in examples)
            draw(chosen, examples, SIZE)
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(count / (clock() - started))
    return statistics.median(rates[1:])


def drawing_per_second(bank: Path, device: str, batch: int) -> float:
    """Drawing alone, of scenes planned before."""
    chosen, rates = stock(Bank(bank, device)), []
    examples = [example(chosen, "paint", 0, i) for i in range(batch)]
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        draw(chosen, examples, SIZE)
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(batch / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def devices_agree(bank: Path, device: str) -> float:
    """Mean difference of a pixel between this device's pictures and the CPU's, of 255."""
    there, here = stock(Bank(bank, device)), stock(Bank(bank))
    examples = [example(here, "paint", 0, i) for i in range(16)]
    pairs = zip(draw(there, examples, SIZE), draw(here, examples, SIZE), strict=True)
    return statistics.mean((a.pictures.cpu().int() - b.pictures.int()).abs().float().mean().item() for a, b in pairs)


def speech_speed(folder: Path, device: str, batch: int) -> dict:
    """Seconds of speech in a second; the first sentence must sound as on the CPU."""
    teacher = Teacher(folder, device)
    rows = [SENTENCES[i % len(SENTENCES)] for i in range(batch)]
    voices = [{name: 1.0} for name in sorted(teacher.voices)[:batch]]
    voices = (voices * batch)[:batch]
    (alone,) = Teacher(folder).speak(rows[:1], voices[:1])
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        spoken = [row.cpu() for row in teacher.speak(rows, voices)]
        times.append(time.perf_counter() - started)
    seconds = sum(map(len, spoken)) / 24_000
    same_length = len(alone) == len(spoken[0])
    error = (alone - spoken[0])[:-240].square().mean().sqrt() / alone.square().mean().sqrt() if same_length else None
    return {
        "batch": batch,
        "times_real_time": round(seconds / statistics.median(times[1:]), 2),
        "hours_in_ten_minutes": round(seconds / statistics.median(times[1:]) / 6, 2),
        "error_against_cpu_alone": None if error is None else round(float(error), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int, default=2, help="processes that plan and draw scenes on the CPU")
    arguments = parser.parse_args()
    is_gpu = arguments.device == "cuda"
    figures: dict = {"device": torch.cuda.get_device_name() if is_gpu else f"cpu, {arguments.workers} workers"}
    if arguments.bank:
        batch = arguments.batch or (256 if is_gpu else 16)
        if is_gpu:
            figures["difference_from_cpu"] = devices_agree(arguments.bank, "cuda")
            figures["planned_and_drawn_per_second"] = round(scenes_per_second(arguments.bank, "cuda", batch))
            figures["drawn_per_second"] = round(drawing_per_second(arguments.bank, "cuda", batch))
        else:
            with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
                starts = [10_000 * i for i in range(arguments.workers)]
                work = [pool.submit(scenes_per_second, arguments.bank, "cpu", batch, start) for start in starts]
                figures["planned_and_drawn_per_second"] = round(sum(job.result() for job in work))
            # What the machine would do with nothing else to do: time on the processor, not on the wall.
            alone = scenes_per_second(arguments.bank, "cpu", batch, clock=time.process_time)
            figures["planned_and_drawn_per_core_second"] = round(alone)
    if arguments.teacher:
        figures["speech"] = speech_speed(arguments.teacher, arguments.device, arguments.batch or (64 if is_gpu else 2))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
