"""benchmarks/image_vae.py: lines that the OCR cannot read in the scene itself do not count; the command scores."""

import json

import torch

from benchmarks.image_vae import kept, main, plain
from ming_omni.config import tiny_painter
from ming_omni.data.scenes import Background, Scene, Words
from ming_omni.model.image_vae import ImageVAE
from ming_omni.train.image_vae import states
from ming_omni.train.image_vae.settings import Settings
from tests.data_bank import write_tiny_bank


def scene(*texts: str) -> Scene:
    grey = ((128,) * 3,) * 2
    return Scene(Background("grey", grey, grey), (), tuple(Words(text, 0, "black", 0.5, 0.5, 0.2) for text in texts))


def test_only_lines_read_in_the_scene_itself_are_counted():
    scenes = [scene("Stop", "公园"), scene("bread", "12")]
    before = [["STOP", "公 园"], ["broad", "12"]]
    after = [["stop", "公元"], ["bread"]]
    found = kept(scenes, before, after)
    assert found["latin"] == {"lines": 3, "read": 2, "kept": 1, "share_kept": 0.5}
    assert found["chinese"] == {"lines": 1, "read": 1, "kept": 0, "share_kept": 0.0}
    assert found["all"] == {"lines": 4, "read": 3, "kept": 1, "share_kept": 0.3333}
    assert plain(" New Year ") == plain("newyear")


def test_the_command_scores_pieces(tmp_path, capsys):
    torch.manual_seed(0)
    bank = write_tiny_bank(tmp_path / "bank.safetensors")
    states.export(tmp_path, ImageVAE(tiny_painter().vae), Settings(), {"step": 0})
    threads = torch.get_num_threads()
    main([str(tmp_path), "--bank", str(bank), "--pictures", "2", "--pixels", "32", "--threads", str(threads)])
    found = json.loads(capsys.readouterr().out)
    assert {"words", "segment", "all", "letters"} <= found["psnr"].keys() and 0 < found["psnr"]["all"] < 30
    assert found["decode_seconds"] > 0
