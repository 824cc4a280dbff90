"""Phoneme ids (B, T), styles (B, 256) -> speech at 24 kHz: Kokoro-82M in torch, many sentences at once.

The network is StyleTTS 2 with an iSTFTNet decoder; it and its weights are Kokoro's (Apache-2.0, hexgrad). Module names
follow the ONNX file, so that weights find their place. Rows of a batch have different lengths, and what stands behind a
short one must not change it: every convolution sees zeros there, every norm counts a row's own frames only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

SAMPLE_RATE_HZ = 24_000
FRAME_SAMPLES = 600
"""Samples of one frame of the duration model, 25 ms."""
NUM_SYMBOLS, MAX_TOKENS = 178, 510
STYLE = 128
"""Width of each half of a style: the first colours the voice, the second its prosody."""
FFT, HOP = 20, 5
HARMONICS, SINE_AMPLITUDE, VOICED_HZ = 9, 0.1, 10.0


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(B) -> (B, 1, size), one where a row has content."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None].float()


class Recurrent(nn.LSTM):
    """Both directions over each row's own length: (B, T, I) -> (B, T, D)."""

    def __init__(self, inner: int, width: int):
        super().__init__(inner, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = super().forward(packed)
        return pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]


# Text


class AlbertLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value", "dense")})
        self.attention["LayerNorm"] = nn.LayerNorm(width, eps=1e-12)
        self.ffn, self.ffn_output = nn.Linear(width, inner), nn.Linear(inner, width)
        self.full_layer_layer_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        part = self.attention
        q, k, v = (part[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value"))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = part["LayerNorm"](x + part["dense"](mixed.transpose(1, 2).flatten(2)))
        inner = F.gelu(self.ffn(x), approximate="tanh")
        return self.full_layer_layer_norm(x + self.ffn_output(inner))


class Albert(nn.Module):
    """Ids (B, T) -> (B, T, 768): one layer, applied twelve times."""

    def __init__(self, width: int = 768, inner: int = 2048, heads: int = 12, depth: int = 12):
        super().__init__()
        self.depth = depth
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(NUM_SYMBOLS, 128),
                "position_embeddings": nn.Embedding(512, 128),
                "token_type_embeddings": nn.Embedding(2, 128),
                "LayerNorm": nn.LayerNorm(128, eps=1e-12),
            }
        )
        self.embedding_hidden_mapping_in = nn.Linear(128, width)
        self.layer = AlbertLayer(width, heads, inner)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        part = self.embeddings
        places = torch.arange(ids.shape[1], device=ids.device)
        x = part["word_embeddings"](ids) + part["position_embeddings"](places) + part["token_type_embeddings"].weight[0]
        x = self.embedding_hidden_mapping_in(part["LayerNorm"](x))
        attend = mask.bool()[:, None]  # (B, 1, 1, T)
        for _ in range(self.depth):
            x = self.layer(x, attend)
        return x


class TextEncoder(nn.Module):
    """Ids (B, T) -> (B, T, 512): what each symbol sounds like, without prosody."""

    def __init__(self, width: int = 512, depth: int = 3):
        super().__init__()
        self.embedding = nn.Embedding(NUM_SYMBOLS, width)
        self.cnn = nn.ModuleList(
            nn.ModuleList([nn.Conv1d(width, width, 5, padding=2), nn.LayerNorm(width)]) for _ in range(depth)
        )
        self.lstm = Recurrent(width, width)

    def forward(self, ids: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids).transpose(1, 2) * mask
        for convolution, norm in self.cnn:
            x = norm(convolution(x).transpose(1, 2)).transpose(1, 2)
            x = F.leaky_relu(x, 0.2) * mask
        return self.lstm(x.transpose(1, 2), lengths)


# Style


class AdaLayerNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Linear(STYLE, 2 * width)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.fc(style)[:, None].chunk(2, dim=-1)
        return (1 + scale) * F.layer_norm(x, x.shape[-1:]) + shift


class AdaIN(nn.Module):
    """Each channel (B, C, L) normalised over its row's own length, then scaled and shifted as the style says."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Linear(STYLE, 2 * channels)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum(-1, keepdim=True)
        centred = x - (x * mask).sum(-1, keepdim=True) / count
        variance = (centred * mask).square().sum(-1, keepdim=True) / count  # (B, C, 1)
        scale, shift = self.fc(style)[..., None].chunk(2, dim=1)
        return torch.addcmul(shift, centred, (1 + scale) * torch.rsqrt(variance + 1e-5)) * mask


class StyledBlock(nn.Module):
    """(B, I, L) -> (B, O, L), or twice as long."""

    def __init__(self, inputs: int, outputs: int, doubles: bool = False):
        super().__init__()
        self.norm1, self.norm2 = AdaIN(inputs), AdaIN(outputs)
        self.conv1, self.conv2 = nn.Conv1d(inputs, outputs, 3, padding=1), nn.Conv1d(outputs, outputs, 3, padding=1)
        self.conv1x1 = nn.Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else None
        self.pool = nn.ConvTranspose1d(inputs, inputs, 3, 2, 1, 1, groups=inputs) if doubles else None

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """mask is that of the input."""
        inner = F.leaky_relu(self.norm1(x, style, mask), 0.2)
        if self.pool is not None:
            mask = mask.repeat_interleave(2, -1)
            inner, x = self.pool(inner) * mask, x.repeat_interleave(2, -1)
        inner = F.leaky_relu(self.norm2(self.conv1(inner), style, mask), 0.2)
        inner = self.conv2(inner)
        if self.conv1x1 is not None:
            x = self.conv1x1(x)
        return (inner + x) * 2**-0.5 * mask


class ProsodyEncoder(nn.Module):
    """(B, T, 512) and prosody style -> (B, T, 640): what it says and how; the style rides along at every step."""

    def __init__(self, width: int = 512, depth: int = 3):
        super().__init__()
        self.lstms = nn.ModuleList()
        for _ in range(depth):
            self.lstms += [Recurrent(width + STYLE, width), AdaLayerNorm(width)]

    def forward(self, x: Tensor, style: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        rows = mask.transpose(1, 2)
        along = style[:, None].expand(-1, x.shape[1], -1)
        x = torch.cat([x, along], -1) * rows
        for recurrent, norm in zip(self.lstms[::2], self.lstms[1::2], strict=True):
            x = torch.cat([norm(recurrent(x, lengths), style), along], -1) * rows
        return x


class Predictor(nn.Module):
    """How long each symbol lasts; then, frame by frame, pitch and energy."""

    def __init__(self, width: int = 512, max_frames: int = 50):
        super().__init__()
        self.text_encoder = ProsodyEncoder(width)
        self.lstm, self.shared = Recurrent(width + STYLE, width), Recurrent(width + STYLE, width)
        self.duration_proj = nn.Linear(width, max_frames)
        for name in ("F0", "N"):
            blocks = [
                StyledBlock(width, width),
                StyledBlock(width, width // 2, True),
                StyledBlock(width // 2, width // 2),
            ]
            self.add_module(name, nn.ModuleList(blocks))
            self.add_module(f"{name}_proj", nn.Conv1d(width // 2, 1, 1))

    def durations(self, x: Tensor, lengths: Tensor, mask: Tensor, speed: Tensor) -> Tensor:
        """(B, T, 640) -> frames of each symbol (B, T), at least one."""
        frames = self.duration_proj(self.lstm(x, lengths)).sigmoid().sum(-1) / speed[:, None]
        return (frames.round().clamp(min=1) * mask[:, 0]).long()

    def pitch_and_energy(self, x: Tensor, style: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, 640) -> (B, 1, 2F) each"""
        shared = self.shared(x, frames).transpose(1, 2)
        mask = length_mask(frames, x.shape[1])
        curves = []
        for blocks, project in ((self.F0, self.F0_proj), (self.N, self.N_proj)):
            y = blocks[0](shared, style, mask)
            y = blocks[1](y, style, mask)
            y = blocks[2](y, style, mask.repeat_interleave(2, -1))
            curves.append(project(y) * mask.repeat_interleave(2, -1))
        return curves[0], curves[1]


# Sound


class Convolution(nn.Conv1d):
    """Computes as wide as its weights are: in fp16 on a GPU, between norms that stay in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class SnakeBlock(nn.Module):
    """Three dilated pairs of convolutions, each behind a style and a periodic activation."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.adain1 = nn.ModuleList(AdaIN(channels) for _ in range(3))
        self.adain2 = nn.ModuleList(AdaIN(channels) for _ in range(3))
        self.convs1 = nn.ModuleList(
            Convolution(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in (1, 3, 5)
        )
        self.convs2 = nn.ModuleList(Convolution(channels, channels, kernel, padding=kernel // 2) for _ in range(3))
        self.alpha1 = nn.ParameterList(nn.Parameter(torch.ones(1, channels, 1)) for _ in range(3))
        self.alpha2 = nn.ParameterList(nn.Parameter(torch.ones(1, channels, 1)) for _ in range(3))

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        for i in range(3):
            y = self.convs1[i](_snake(self.adain1[i](x, style, mask), self.alpha1[i]))
            y = self.convs2[i](_snake(self.adain2[i](y, style, mask), self.alpha2[i]))
            x = x + y
        return x


def _snake(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.addcmul(x, wave := (alpha * x).sin_(), wave / alpha)


class Generator(nn.Module):
    """(B, 512, L) and pitch (B, 1, L) -> samples (B, 300 L): harmonics of the pitch, shaped by the network."""

    def __init__(self, width: int = 512, rates: tuple[int, ...] = (10, 6), kernels: tuple[int, ...] = (3, 7, 11)):
        super().__init__()
        self.rates = rates
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(HARMONICS, 1)})
        channels = [width // 2 ** (i + 1) for i in range(len(rates))]
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(width // 2**i, c, 2 * rate, rate, rate // 2)
            for i, (c, rate) in enumerate(zip(channels, rates, strict=True))
        )
        self.noise_convs = nn.ModuleList(
            [
                nn.Conv1d(FFT + 2, channels[0], 2 * rates[1], rates[1], (rates[1] + 1) // 2),
                nn.Conv1d(FFT + 2, channels[1], 1),
            ]
        )
        self.noise_res = nn.ModuleList([SnakeBlock(channels[0], 7), SnakeBlock(channels[1], 11)])
        self.resblocks = nn.ModuleList(SnakeBlock(c, k) for c in channels for k in kernels)
        self.conv_post = nn.Conv1d(channels[-1], FFT + 2, 7, padding=3)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def forward(self, x: Tensor, style: Tensor, pitch: Tensor, lengths: Tensor) -> Tensor:
        harmonics = self._harmonics(pitch)  # (B, 300 L)
        spectrum = torch.stft(harmonics, FFT, HOP, window=self.window, return_complex=True)  # (B, 11, 60 L + 1)
        fine = length_mask(lengths * self.rates[0] * self.rates[1] + 1, spectrum.shape[-1])
        source = torch.cat([spectrum.abs(), spectrum.angle()], 1) * fine  # (B, 22, 60 L + 1)
        masks = [length_mask(lengths * self.rates[0], x.shape[-1] * self.rates[0]), fine]
        for i, mask in enumerate(masks):
            excitation = self.noise_res[i](self.noise_convs[i](source), style, mask)
            x = self.ups[i](F.leaky_relu(x, 0.1))
            if i == len(masks) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            x = (x + excitation) * mask
            blocks = self.resblocks[3 * i : 3 * i + 3]
            x = sum(block(x, style, mask) for block in blocks) / 3 * mask
        x = self.conv_post(F.leaky_relu(x))
        loudness, phase = x.split(FFT // 2 + 1, 1)
        spectrum = torch.polar(loudness.exp() * fine, phase.sin())
        return torch.istft(spectrum, FFT, HOP, window=self.window)

    def halve(self) -> None:
        """The convolutions that take most of the time, in fp16."""
        for module in self.modules():
            if isinstance(module, Convolution):
                module.half()

    def _harmonics(self, pitch: Tensor) -> Tensor:
        """Sines of the pitch and its overtones, mixed into one wave; silent where nothing is voiced."""
        scale = FRAME_SAMPLES // 2
        orders = torch.arange(1, HARMONICS + 1, device=pitch.device)[:, None]
        cycles = (pitch * orders / SAMPLE_RATE_HZ) % 1  # of a sample, (B, 9, L)
        # A frame's phase is that at its middle; in between it is interpolated. float64 keeps long sentences in tune.
        phase = cycles.double().cumsum(-1) * scale
        phase = F.interpolate(phase, scale_factor=scale, mode="linear")
        sines = (2 * torch.pi * (phase % 1)).float().sin() * SINE_AMPLITUDE
        voiced = (pitch > VOICED_HZ).float().repeat_interleave(scale, -1)
        return self.m_source["l_linear"]((sines * voiced).transpose(1, 2))[..., 0].tanh()


class Decoder(nn.Module):
    """Frames (B, 512, F), pitch and energy (B, 1, 2F) -> samples (B, 600 F)"""

    def __init__(self, width: int = 512, inner: int = 1024, residual: int = 64):
        super().__init__()
        self.encode = StyledBlock(width + 2, inner)
        joined = inner + residual + 2
        self.decode = nn.ModuleList(StyledBlock(joined, inner) for _ in range(3))
        self.decode.append(StyledBlock(joined, width, doubles=True))
        self.F0_conv, self.N_conv = nn.Conv1d(1, 1, 3, 2, 1), nn.Conv1d(1, 1, 3, 2, 1)
        self.asr_res = nn.ModuleList([nn.Conv1d(width, residual, 1)])
        self.generator = Generator(width)

    def forward(self, x: Tensor, pitch: Tensor, energy: Tensor, style: Tensor, frames: Tensor) -> Tensor:
        mask = length_mask(frames, x.shape[-1])
        along = torch.cat([self.asr_res[0](x), self.F0_conv(pitch), self.N_conv(energy)], 1) * mask
        x = self.encode(torch.cat([x, along[:, -2:]], 1) * mask, style, mask)
        for block in self.decode:
            x = block(torch.cat([x, along], 1), style, mask)
        return self.generator(x, style, pitch, 2 * frames)


class Kokoro(nn.Module):
    """The widths are Kokoro-82M's; tests take smaller ones."""

    def __init__(self, width: int = 512, albert_width: int = 768, albert_inner: int = 2048, decoder_width: int = 1024):
        super().__init__()
        self.bert = Albert(albert_width, albert_inner)
        self.bert_encoder = nn.Linear(albert_width, width)
        self.predictor, self.text_encoder = Predictor(width), TextEncoder(width)
        self.decoder = Decoder(width, decoder_width)

    def forward(self, ids: Tensor, lengths: Tensor, styles: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, T) with 0 at both ends and as padding, lengths (B), styles (B, 256), speed (B)

        returns samples (B, n) and how many of each row are its own (B).
        """
        return self.aligned(ids, lengths, styles, speed)[:2]

    @torch.inference_mode()
    def aligned(self, ids: Tensor, lengths: Tensor, styles: Tensor, speed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and which symbol of its row each frame says (B, F)."""
        mask = length_mask(lengths, ids.shape[1])
        timbre, prosody = styles.split(STYLE, 1)
        x = self.bert_encoder(self.bert(ids, mask))
        x = self.predictor.text_encoder(x, prosody, lengths, mask)  # (B, T, 640)
        durations = self.predictor.durations(x, lengths, mask, speed)
        frames = durations.sum(1)
        owner = symbol_of_frame(durations)  # (B, F)
        pitch, energy = self.predictor.pitch_and_energy(_spread(x, owner), prosody, frames)
        sounds = _spread(self.text_encoder(ids, lengths, mask), owner).transpose(1, 2)
        samples = self.decoder(sounds * length_mask(frames, owner.shape[1]), pitch, energy, timbre, frames)
        return samples, frames * FRAME_SAMPLES, owner


def symbol_of_frame(durations: Tensor) -> Tensor:
    """(B, T) frames of each symbol -> (B, F) which symbol each frame belongs to; past the end, the last one."""
    ends = durations.cumsum(1)
    frames = torch.arange(int(ends[:, -1].max()), device=durations.device)
    return torch.searchsorted(ends, frames.expand(len(ends), -1).contiguous(), right=True).clamp(max=ends.shape[1] - 1)


def _spread(x: Tensor, owner: Tensor) -> Tensor:
    """(B, T, D), (B, F) -> (B, F, D)"""
    return x.gather(1, owner[..., None].expand(-1, -1, x.shape[-1]))
